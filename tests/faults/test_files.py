"""Files that are not what they should be: challenge files, records, models; nothing in them runs, and nothing is mixed up."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ttt_core.errors import InputError

GOOD = '{"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}'
FILES = {
    "truncated": GOOD[:40],
    "deep": "[" * 100_000 + "]" * 100_000,
    "huge": '{"a": "' + "x" * (65 * 2**20) + '"}',
    "empty": "",
    "no object": "[1, 2]",
    "twice": f'{{"a": {GOOD}, "a": {GOOD}}}',
    "missing": None,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_challenge_file_of_no_use_is_one_error_and_starts_nothing(place, kind):
    path = place.root / "challenges.json"
    path.unlink()
    if FILES[kind] is not None:
        path.write_text(FILES[kind])
    with pytest.raises(InputError, match="challenges.json"):
        place.run()
    assert not (place.root / "run").exists() and place.turns() == []


TASKS = {
    "ragged": GOOD.replace("[[1]]", "[[1, 2], [3]]"),
    "too wide": GOOD.replace("[[1]]", f"[{[0] * 31}]"),
    "no colour": GOOD.replace("[[1]]", "[[10]]"),
    "a twice-named key": GOOD.replace('"test"', '"train": [], "test"'),
    "NaN": GOOD.replace("[[1]]", "[[NaN]]"),
    "a bool": GOOD.replace("[[1]]", "[[true]]"),
    "no demonstrations": GOOD.replace('[{"input": [[1]], "output": [[2]]}]', "[]"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_of_no_use_costs_itself_alone(place, kind):
    (place.root / "challenges.json").write_text(f'{{"a": {GOOD}, "b": {TASKS[kind]}, "c": {GOOD}}}')
    summary = place.run()
    assert (summary.ok, summary.skipped) == (2, 1) and place.answered() == {"a", "c"}
    assert summary.outcomes["b"]["reason"].startswith("task b")


@pytest.mark.parametrize("kind", ["ragged", "too wide", "no colour", "NaN", "no demonstrations"])
def test_the_naive_reader_fails_as_a_whole_or_takes_it(kind):
    """json.load and np.array: another error than InputError, or no error at all."""
    text = f'{{"a": {GOOD}, "b": {TASKS[kind]}, "c": {GOOD}}}'
    try:
        tasks = json.loads(text)
        read = {name: [np.array(pair["input"], np.uint8) for pair in task["train"]] for name, task in tasks.items()}
    except Exception as error:
        assert not isinstance(error, InputError)
    else:
        assert "b" in read


def corrupted(text: str) -> str:
    return text.replace('"status":"ok"', '"status":"no"')


@pytest.mark.parametrize("kind", ["corrupted", "swapped"])
def test_a_record_that_is_not_what_it_says_is_set_aside_and_solved_again(place, kind):
    place.run()
    before = (place.root / "run" / "submission.json").read_bytes()
    records = place.root / "run" / "tasks"
    if kind == "corrupted":
        (records / "a.json").write_text(corrupted((records / "a.json").read_text()))
    else:
        shutil.copy(records / "b.json", records / "a.json")
    n = len(place.turns())
    place.run(budget_s=0.0)
    assert (place.root / "run" / "submission.json").read_bytes() == before  # the answer is not lost meanwhile
    place.run()
    assert place.turns()[n:] == ["a"] and (records / "a.json.corrupt-1").exists()
    assert (place.root / "run" / "submission.json").read_bytes() == before


def test_the_naive_reader_of_records_takes_the_swapped_one(place):
    place.run()
    records = place.root / "run" / "tasks"
    shutil.copy(records / "b.json", records / "a.json")
    naive = {file.stem: json.loads(file.read_text())["result"]["attempts"] for file in records.glob("*.json")}
    assert naive["a"] == naive["b"]


class Trap:
    """Unpickled, it makes the file `canary`."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


def poisoned(folder, kind, canary) -> None:
    """A model folder that would make the file `canary`, were it read as carelessly as is usual."""
    folder.mkdir()
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    if kind == "auto_map":
        config |= {"auto_map": {"AutoModelForCausalLM": "code.Net", "AutoConfig": "code.Config"}}
        (folder / "code.py").write_text(f"open({str(canary)!r}, 'w')\nclass Net: pass\nclass Config: pass\n")
    else:
        name = "pytorch_model.bin" if kind == "pickle" else "model.safetensors"
        (folder / name).write_bytes(pickle.dumps(Trap(canary)))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["pickle", "renamed pickle", "auto_map"])
def test_a_model_that_would_run_code_is_refused_and_the_file_is_valid(place, kind):
    canary = place.root / "canary"
    poisoned(place.root / "poisoned", kind, canary)
    summary = place.run(solver="ttt_core.run.worker:load_solver", model=place.root / "poisoned")
    assert summary.stopped.startswith("no worker could be started: load: ModelError: model ")
    assert summary.skipped == 4 and place.answered() == set() and not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "renamed pickle"])
def test_a_careless_loader_springs_the_trap(tmp_path, kind):
    poisoned(tmp_path / "model", kind, tmp_path / "canary")
    weights = next(file for file in (tmp_path / "model").iterdir() if file.suffix != ".json")
    with weights.open("rb") as file:
        pickle.load(file).close()
    assert (tmp_path / "canary").exists()


def test_a_careless_import_springs_the_other_trap(tmp_path):
    poisoned(tmp_path / "model", "auto_map", tmp_path / "canary")
    subprocess.run([sys.executable, "code.py"], cwd=tmp_path / "model", check=True, env=dict(os.environ))
    assert (tmp_path / "canary").exists()
