"""The command line: exit codes, and every refusal in one line that names the argument and the remedy."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ttt_core.__main__ import main
from ttt_core.config import preset
from ttt_core.errors import InputError
from ttt_core.model import pretrain as training
from ttt_core.run import report
from ttt_core.run import run as run_module
from ttt_core.run.suited import suited

ROOT = Path(__file__).parents[2]
STANDIN = """
from ttt_core.arc.result import TaskResult

def load(model, device, config):
    def solve(tasks, config, seed, deadline, beat):
        [task] = tasks
        if task.id == "c":
            raise ValueError("no")
        return [TaskResult(task.id, "ok", attempts=tuple((p.input, 9 - p.input) for p in task.test))]
    return solve
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Challenges a, b, c whose answers are their inputs, their solutions, and a model folder, as the working folder."""
    tests = {task_id: [[i + 1, 0]] for i, task_id in enumerate("abc")}
    pairs = {task_id: {"input": grid, "output": grid} for task_id, grid in tests.items()}
    tasks = {t: {"train": [pairs[t]] * (i + 1), "test": [{"input": g}]} for i, (t, g) in enumerate(tests.items())}
    (tmp_path / "challenges.json").write_text(json.dumps(tasks))
    (tmp_path / "solutions.json").write_text(json.dumps({task_id: [grid] for task_id, grid in tests.items()}))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "standin.py").write_text(STANDIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(run_module, "run", functools.partial(run_module.run, solver="standin:load"))
    return tmp_path


SOLVE = "solve challenges.json --model model --out out --budget-s 30"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "Missing command"),
        ("slove", "No such command 'slove'"),
        ("solve challenges.json --model model --out out", "Missing option '--budget-s'"),
        ("solve --model model --out out --budget-s 3", "Missing argument 'challenges'"),
        (f"{SOLVE} --budget-s soon", "'--budget-s'"),
        (f"{SOLVE} --budget-s nan", "budget nan s: give a finite number"),
        (f"{SOLVE} --budget-s=-1", "budget -1.0 s: give a finite number"),
        (f"{SOLVE} --bugdet 3", "No such option: --bugdet"),
        (f"{SOLVE} --seed", "--seed"),
        (f"{SOLVE} --seed 1.5", "'--seed'"),
        (f"{SOLVE} --preset gird", "preset gird: the nearest known name is grid"),
        (f"{SOLVE} --set adapt.rnak=3", "adapt.rnak: the nearest known name is rank"),
        (f"{SOLVE} --set adapt.rank=0", "adapt.rank=0: give 1 or more"),
        (f"{SOLVE} --tasks a,z", "unknown task 'z'"),
        (f"{SOLVE} --model nowhere", "model nowhere: is not a folder; give"),
        (f"{SOLVE} --out challenges.json", "run folder challenges.json: "),
        ("solve nothing.json --model model --out out --budget-s 3", "nothing.json: cannot be read"),
        ("score nothing.json solutions.json", "nothing.json: cannot be read"),
        ("reselect nowhere --selector majority", "run folder nowhere: holds no run.json"),
        ("data --edition arc-agi-3 --out data", "unknown edition 'arc-agi-3'"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_2(place, capfd, line, told):
    assert main(line.split()) == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and told in err and "Traceback" not in err + out


def test_solve_ends_with_0_and_one_summary_line_whatever_was_solved(place, capfd):
    assert main(SOLVE.split()) == 0
    out, err = capfd.readouterr()
    assert out.startswith("2 ok, 1 failed, 0 skipped in ") and out.endswith("30 s: out/submission.json\n")
    assert "[1/3] a ok" in err and "[3/3] c failed" in err and "solve: ValueError: no" in err
    assert main(f"{SOLVE} --budget-s 0 --out none".split()) == 0
    out, err = capfd.readouterr()
    assert out.startswith("0 ok, 0 failed, 3 skipped") and "left early: the budget of 0 s was used up" in err


def test_a_signal_before_the_run_leaves_the_file_and_exit_code_0(place):
    code = """
import os, signal
from ttt_core import __main__ as cli
from ttt_core.model import access
access.resolve = lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM)
cli.sys.exit(cli.main("solve challenges.json --model some/model --out out --budget-s 30".split()))
"""
    environ = {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}
    assert subprocess.run([sys.executable, "-c", code], cwd=place, env=environ, check=False).returncode == 0
    assert len(json.loads((place / "out" / "submission.json").read_text())) == 3


def test_settings_and_model_go_together(place, capfd):
    """A stand-in for what cannot be had is solved with by its own settings, and this is told."""
    (place / "model/config.json").write_text('{"model_type": "llama"}')
    assert main(SOLVE.split()) == 2
    assert "model model: is a llama and no GridLM; take its preset, such as marc" in capfd.readouterr().err
    assert main(f"{SOLVE} --preset marc".split()) == 0
    (place / "model/config.json").write_text('{"model_type": "gridlm"}')
    shutil.rmtree(place / "out")
    assert main(f"{SOLVE} --preset nvarc".split()) == 2
    assert "preset nvarc: is for text models, model is a GridLM; take preset grid" in capfd.readouterr().err
    options, told = suited("nvarc", ["adapt.rank=64"], Path("model"), strict=False)
    assert options == preset("grid") and told.endswith("take preset grid, which is done")


def test_where_a_model_cannot_be_had_the_bundled_one_has_its_own_settings(place, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = SOLVE.replace("--model model", "--model nobody/nothing-here")
    assert main(f"{line} --fallback --preset nvarc --set adapt.rank=64".split()) == 0
    told = json.loads((place / "out/run.json").read_text())
    assert "fallback to the bundled base" in told["model_note"] and "take preset grid" in told["model_note"]
    assert told["identity"]["config.model.format"] == "auto" and told["counts"]["ok"] == 2


def test_ctrl_c_before_there_is_a_file_is_no_success(place, monkeypatch):
    monkeypatch.setattr(run_module, "write_fallback", lambda *_: signal.raise_signal(signal.SIGINT))
    for code in (130, 0):
        with pytest.raises(SystemExit) as left:
            main(SOLVE.split())
        assert left.value.code == code
        (place / "out").mkdir(exist_ok=True)
        (place / "out/submission.json").write_text("{}")


def test_solutions_of_another_edition_are_one_error(place, capfd):
    main(SOLVE.split())
    (place / "other.json").write_text(json.dumps({"z": [[[1]]]}))
    capfd.readouterr()
    assert main("score out/submission.json other.json".split()) == 2
    told = capfd.readouterr()
    assert "other.json: hold none of the tasks of out; give those of its edition" in told.err and not told.out


def test_score_takes_the_tasks_of_the_run_unless_told(place, capfd):
    main(f"{SOLVE} --tasks 2".split())
    capfd.readouterr()

    def score(options=""):
        assert main(f"score out/submission.json solutions.json {options}".split()) == 0
        return capfd.readouterr().out

    told = score()
    assert told.startswith("scored on the 2 tasks of this run (those with the fewest cells); the solutions file")
    assert "2/2" in told
    assert "outputs solved  1/2" in score("--tasks a,c") and "1/1" in score("--tasks 1")
    assert main(f"{SOLVE.replace('--out out', '--out all')}".split()) == 0
    (place / "more.json").write_text(json.dumps(json.loads((place / "solutions.json").read_text()) | {"z": [[[1]]]}))
    capfd.readouterr()
    assert main("score all/submission.json more.json".split()) == 0  # of a file that holds other tasks too
    assert capfd.readouterr().out.startswith("scored on the 3 tasks of this run (all of its file)")
    (place / "few.json").write_text(json.dumps({"a": [[[1, 0]]]}))
    assert main("score all/submission.json few.json".split()) == 0
    assert "3 tasks of this run (all of its file) but 2 that few.json does not know" in capfd.readouterr().out
    for damaged in ("", '{"identity": {}, "tasks": {}}'):
        (place / "out" / "run.json").write_text(damaged)
        assert "outputs solved" in score()
    for command in ("report out", "reselect out --selector majority"):
        assert main(command.split()) == 2 and "run.json: lacks challenges, model" in capfd.readouterr().err
    (place / "out" / "run.json").unlink()
    assert "outputs solved  2/3" in score() and "scored on" not in score()
    (place / "challenges.json").unlink()
    assert "1/2" in score("--tasks a,c")
    assert main("score out/submission.json solutions.json --tasks 1".split()) == 2
    assert "challenges.json beside the solutions" in capfd.readouterr().err


def test_help_is_no_error(capsys):
    for line in ("--help", "solve --help", "pretrain --help"):
        assert main(line.split()) == 0
    assert "--budget-s" in capsys.readouterr().out


def test_every_option_reaches_the_function_that_it_is_for(place, monkeypatch):
    asked = {}

    def recorded(module, name):
        def function(*given, **named):
            asked[name] = given, named
            raise InputError("enough")

        monkeypatch.setattr(module, name, function)

    for module, name in (
        (run_module, "run"),
        (run_module, "reselect"),
        (training, "pretrain"),
        (report, "write_report"),
    ):
        recorded(module, name)
    began = time.monotonic()
    assert main(f"{SOLVE} --tasks a --seed 7 --devices cpu:2 --preset marc --set adapt.rank=64".split()) == 2
    (challenges, model, out), named = asked["run"]
    assert (str(challenges), str(model), str(out)) == ("challenges.json", "model", "out")
    assert began <= named.pop("started") <= time.monotonic() and named.pop("model_note") == ""
    options = {"budget_s": 30.0, "tasks": "a", "seed": 7, "devices": "cpu:2"}
    assert named == options | {"config": preset("marc", ["adapt.rank=64"])}
    line = "--data d --extra e --transductive t --base b --challenges c --hold-out h --exclude x,y --lr 3 --piece-s 4"
    assert main(f"pretrain --out m --budget-s 5 {line}".split()) == 2
    (data, out, config), named = asked["pretrain"]
    assert (str(data), str(out), config.budget_s, config.lr, config.piece_s) == ("d", "m", 5.0, 3.0, 4.0)
    assert began <= named.pop("began") and {name: str(path) for name, path in named.items() if isinstance(path, Path)} == {
        "extra": "e", "transductive": "t", "base": "b", "guard": "c"
    }  # fmt: skip
    assert (named["hold_out"], named["exclude"]) == (frozenset("h"), frozenset("xy"))
    (place / "out/run.json").write_text("{}")
    assert main("report out --solutions s.json --challenges c.json".split()) == 2
    assert main("reselect out --selector majority --challenges c.json".split()) == 2
    assert tuple(map(str, asked["write_report"][0])) == ("out", "s.json", "c.json")
    assert tuple(map(str, asked["reselect"][0])) == ("out", "majority", "c.json")
