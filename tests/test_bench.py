"""Each bench runs to its end at toy size and writes its figures; the figures themselves are for tests/bench/."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench import more_tasks
from tests.bench.concepts import PAIRS, all_concepts, pairs_of
from tests.bench.more_tasks import concept_tasks
from ttt_core.arc.augment import task_rng
from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import MAX_TASKS
from ttt_core.errors import InputError
from ttt_core.model.sources import read_corpus

ROOT = Path(__file__).parents[1]
FOUND = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # a bench finds the library itself
ENVIRON = FOUND | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run_here(monkeypatch):
    """Runs the `main` of a bench in this process, which has imported torch already."""
    monkeypatch.syspath_prepend(ROOT / "tests/bench")

    def run(name: str, *options) -> None:
        bench = importlib.import_module(name)
        monkeypatch.setattr(bench, "keep_memory", lambda: None, raising=False)  # for good, it would be
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        if hasattr(bench, "typer"):
            with pytest.raises(SystemExit) as ended:
                bench.typer.run(bench.main)
            assert not ended.value.code
        else:
            bench.main()

    return run


def test_search(tmp_path, run_here):
    options = ["--tasks", 1, "--views", 2, "--train-s", 1, "--adapt-steps", 20, "--data", tmp_path / "data"]
    run_here("search", *options, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["candidates_equal"] is True
    assert {"speedup_vs_recursive", "speedup_vs_generate", "scoring_speedup"} <= figures.keys()


def test_ablate_goes_on_where_it_was_stopped(tmp_path, run_here, capsys):
    write_edition("arc-agi-1", tmp_path / "data")
    few = "=adapt.steps=2 decode.views=2 rescore.views=2"
    options = ["--data", tmp_path / "data", "--json", tmp_path / "lines", "--model", ROOT / "kaggle_dataset/model"]
    options += ["--arm", "few" + few, "--arm", "none" + few + " adapt.method=none"]
    for tasks, done in (("00576224", 2), ("00576224,66e6c45b", 4)):
        run_here("ablate", *options, "--tasks", tasks)
        lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
        assert len({(line["task"], line["arm"]) for line in lines}) == len(lines) == done
    rows = [dict(part.split(" ", 1) for part in line.split("  ")) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row["arm"] for row in rows] == ["few", "none"] and rows[0]["tasks"] == "2"
    assert float(rows[0]["nats_per_token"]) != float(rows[1]["nats_per_token"])
    with open(tmp_path / "lines", "a") as torn:
        torn.write('{"task": "66e6')
    run_here("ablate", *options, "--tasks", "66e6c45b")  # nothing is measured anew, nothing else is shown
    assert capsys.readouterr().out.count("  tasks 1  ") == 2
    assert len((tmp_path / "lines").read_text().splitlines()) == 4
    for arm, told in (("few=", "two have the same name"), ("more=second.passes=1", "all make one pass")):
        with pytest.raises(SystemExit, match=told):
            run_here("ablate", *options, "--arm", arm, "--tasks", "66e6c45b")
    other = [str(part).replace("adapt.steps=2", "adapt.steps=3") for part in options]
    with pytest.raises(SystemExit, match="arm few was measured with other settings"):
        run_here("ablate", *other, "--tasks", "00576224")


def test_ablate_base_asks_a_task_in_context(tmp_path, run_here):
    write_edition("arc-agi-1", tmp_path / "data")
    options = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--arm", "in-context", "--tasks", 1, "--exclude", "40853293,caa06a1f"]
    run_here("ablate_base", *options, "--budget-s", 9, "--width", 32, "--layers", 1, "--steps", 2)
    figures = json.loads((tmp_path / "out/in-context.json").read_text())
    assert figures["outputs"] == 1 and figures["tokens"] > 0 and 0 < figures["nats_per_token"] < 20


def test_ablate_base_without_tasks_asks_none(tmp_path, run_here, monkeypatch):
    write_edition("arc-agi-1", tmp_path / "data")
    (tmp_path / "out").mkdir()
    base = importlib.import_module("ttt_core.model.pretrain")
    monkeypatch.setattr(base, "pretrain", lambda data, out, *_, **__: out.symlink_to(ROOT / "kaggle_dataset/model"))
    run_here("ablate_base", "--data", tmp_path / "data", "--out", tmp_path / "out", "--arm", "default")
    figures = json.loads((tmp_path / "out/default.json").read_text())
    assert figures["outputs"] == 0 and figures["held_out_nll"] > 0


def test_ablate_base_has_one_axis_wherever_positions_are_turned(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/bench")
    base = importlib.import_module("ablate_base")
    turning = [module for name, module in sys.modules.items() if name.startswith("ttt_core.") and "rotary_table" in vars(module)]
    with base.changed("one-axis", 512):
        assert len(turning) > 2 and all(module.rotary_table is base.one_axis_table for module in turning)
    assert not any(module.rotary_table is base.one_axis_table for module in turning)


def run_script(name: str, *options) -> str:
    command = [sys.executable, ROOT / f"tests/bench/{name}.py", *options]
    ran = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_more_tasks_are_made_and_none_shows_what_is_asked(tmp_path):
    write_edition("arc-agi-1", tmp_path / "data")
    (tmp_path / "mini").mkdir()
    painted = {"input": [["1", 0], [None, 2]], "output": [[1, 0], [0, None]]}
    (tmp_path / "mini/a.json").write_text(json.dumps({"train": [painted], "test": [painted]}))
    training = json.loads((tmp_path / "data/arc-agi_training_challenges.json").read_text())
    asked, free = [[7, 7]], [[8, 7], [7, 7]]
    (tmp_path / "asked.json").write_text(
        json.dumps({"t": {"train": training["007bbfb7"]["train"], "test": [{"input": asked}]}})
    )
    pairs = {"007bbfb7": [{"input": grid, "output": [[1]]} for grid in (asked, free)]}
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    texts = []
    for out in ("one", "two"):
        options = [
            "--source",
            tmp_path / "data",
            "--out",
            tmp_path / out,
            "--made",
            "3",
            "--mini-arc",
            tmp_path / "mini",
        ]
        told = run_script(
            "more_tasks", *options, "--more-pairs", tmp_path / "pairs.json", "--unlike", tmp_path / "asked.json"
        )
        assert told.startswith("404 tasks, 3 of ")
        texts.append([file.read_bytes() for file in sorted((tmp_path / out).iterdir())])
    assert texts[0] == texts[1]
    corpus = read_corpus(tmp_path / "one", tmp_path / "one/extra.json.gz", max_tokens=1863)
    assert len(corpus.task_ids) == 404 and corpus.task_ids[400] == "mini0000"
    inputs = [p.input.tolist() for index, p in corpus.pairs if corpus.task_ids[index] == "007bbfb7"]
    assert free in inputs and asked not in inputs
    assert [p.output.tolist() for index, p in corpus.pairs if index == 400] == [[[1, 0], [0, 0]]]
    made = [index for index, _ in corpus.pairs if corpus.task_ids[index].startswith("made")]
    assert len(set(made)) == 3 and all(made.count(index) >= 6 for index in made)


@pytest.fixture
def source(tmp_path):
    """A training task `t` of 14 demonstrations, and a generated pair that has its test input."""
    rng = np.random.default_rng(0)
    *train, test = [{"input": g.tolist(), "output": g.T.tolist()} for g in rng.integers(0, 5, (15, 3, 3))]
    challenges = {"t": {"train": train, "test": [{"input": test["input"]}]}}
    (tmp_path / "arc-agi_training_challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "arc-agi_training_solutions.json").write_text(json.dumps({"t": [test["output"]]}))
    (tmp_path / "pairs.json").write_text(json.dumps({"t": [{"input": test["input"], "output": [[1, 2]]}]}))
    return tmp_path


def test_of_the_test_pairs_of_held_out_tasks_nothing_is_made(source):
    (source / "held.txt").write_text("t\n")
    (test,) = json.loads((source / "arc-agi_training_challenges.json").read_text())["t"]["test"]
    answer = json.loads((source / "arc-agi_training_solutions.json").read_text())["t"][0]
    line = ["--source", str(source), "--pairs", str(source / "pairs.json"), "--out", str(source / "out"), "--made", "9"]
    found = []
    for options in ([], ["--hold-out", f"@{source / 'held.txt'}"]):
        assert more_tasks.main([*line, *options]) == 0
        corpus = read_corpus(source / "out", source / "out/extra.json.gz", max_tokens=1863)
        made = [pair.input.tolist() for index, pair in corpus.pairs if corpus.task_ids[index] != "t"]
        assert len(made) > 9 * 5
        found.append([grid in made for grid in (test["input"], answer, [[1, 2]])])
    assert found == [[True] * 3, [False] * 3]
    with pytest.raises(InputError, match="--hold-out other: not among the training tasks"):
        more_tasks.main([*line, "--hold-out", "other"])


def test_more_tasks_than_are_read_are_not_made(source, monkeypatch):
    monkeypatch.setattr(more_tasks, "make_task", None)
    monkeypatch.setattr(more_tasks, "pairs_of", None)
    ideas = len(all_concepts())
    for made, concepts in ((MAX_TASKS, 0), (MAX_TASKS - ideas, 1)):
        line = ["--source", str(source), "--out", str(source / "out"), "--made", str(made), "--concepts", str(concepts)]
        with pytest.raises(InputError, match=f"--made {made} and --concepts {concepts} .*{MAX_TASKS + 1} tasks.*10000 at most"):
            more_tasks.main(line)
    assert not (source / "out").exists()


def test_every_concept_makes_tasks_and_makes_them_again():
    ideas = all_concepts()
    made = concept_tasks(1)
    assert len(ideas) > 300 and len(made) > 0.95 * len(ideas)
    for name, pairs in made.items():
        idea, grids = name.rpartition("-")[0], [np.array(g) for pair in pairs for g in pair.values()]
        assert len(pairs) == PAIRS and all(g.ndim == 2 and max(g.shape) <= 30 and g.max() <= 9 for g in grids), name
        assert len({json.dumps(pair["input"]) for pair in pairs}) == PAIRS, name
        if idea.endswith("e"):  # some of each module
            again = pairs_of(ideas[idea], task_rng(0, name))
            assert [[a.tolist(), b.tolist()] for a, b in again] == [list(pair.values()) for pair in pairs], name


def test_a_rule_that_tells_too_little_makes_no_task():
    def concept(outputs, scenes):
        def draw(rng):
            n = int(rng.integers(scenes))
            return np.full((1, n + 1), 5), np.full((2, 2), n % outputs)

        return lambda rng: draw

    rng = task_rng(0, "any")
    assert pairs_of(concept(3, 30), rng) and pairs_of(concept(2, 30), rng) is None  # of two outputs one is right by chance
    assert pairs_of(concept(3, PAIRS - 1), rng) is None and pairs_of(lambda rng: None, rng) is None
    assert pairs_of(lambda rng: lambda rng: (np.full((1, 1 + int(rng.integers(99))), 1),) * 2, rng) is None  # unchanged


def test_generated_pairs_are_those_that_the_verifier_agrees_with(tmp_path):
    package = tmp_path / "rg/reasoning_gym/arc/rearc_utils"
    package.mkdir(parents=True)
    (package / "generators.py").write_text(
        "import time\n"
        "def generate_a(rng, low, high):\n"
        "    n = rng.randint(0, 9)\n"
        "    if n == 9: time.sleep(9)\n"
        "    if n == 8: raise ValueError\n"
        "    return {'input': ((n,),), 'output': ((n if n < 2 else n + 1,),)}\n"
    )
    (package / "verifiers.py").write_text("def verify_a(grid): return ((grid[0][0] + 1,),)\n")
    run_script("re_arc_pairs", "--package", tmp_path / "rg", "--out", tmp_path / "a.json.gz", "--count", "3")
    pairs = json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))["a"]
    assert len(pairs) == 3 and all(
        2 <= p["input"][0][0] <= 7 and p["output"] == [[p["input"][0][0] + 1]] for p in pairs
    )
