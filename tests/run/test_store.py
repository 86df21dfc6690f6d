"""Records: whole or set aside, never half; one process per folder; a receipt that tells what differs."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.config import AdaptConfig, Config
from ttt_core.errors import CheckpointError, InputError
from ttt_core.run import environment, receipt, store


def grid(*rows):
    return np.array(rows, np.uint8)


@pytest.fixture
def result():
    candidate = Candidate(grid([1, 2]), (-0.1, math.nan, -math.inf), (0, 3))
    return TaskResult(
        "abc",
        "ok",
        attempts=((grid([1, 2]), grid([3])),),
        candidates=((candidate,),),
        views=("d0", "d3 c0192837465"),
        seconds={"adapt": np.float32(1.5)},
        peak_gib=0.25,
        notes={"losses": [1.0, math.nan], "steps": np.int64(7)},
    )


@pytest.fixture
def run_dir(tmp_path):
    with store.locked(tmp_path / "run"):
        pass
    return tmp_path / "run"


def record(run_dir):
    return run_dir / "tasks" / "abc.json"


def test_a_record_comes_back_as_it_was(run_dir, result):
    store.write_record(run_dir, result)
    read = store.read_record(record(run_dir), "abc", 1)
    np.testing.assert_array_equal(read.attempts[0][0], [[1, 2]])
    candidate = read.candidates[0][0]
    assert candidate.grid.dtype == np.uint8 and candidate.found_in == (0, 3)
    np.testing.assert_array_equal(candidate.logprobs, (-0.1, math.nan, -math.inf))
    assert read.views == result.views and read.notes == {"losses": [1.0, None], "steps": 7}
    assert json.loads(record(run_dir).read_text())["result"]["candidates"][0][0]["logprobs"][1] is None
    assert store.result_to_dict(read) == store.result_to_dict(result)


def flip_a_cell(text):
    return text.replace("[[[1,2]]", "[[[1,4]]").replace("[[1,2]]", "[[1,4]]")


DAMAGE = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "other schema": lambda text: text.replace('"schema":1', '"schema":2'),
    "a changed cell": flip_a_cell,
    "a changed status": lambda text: text.replace('"status":"ok"', '"status":"failed"'),
    "no object": lambda text: "[]",
    "not text": lambda text: "\x00\x01",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_set_aside(run_dir, result, damage):
    store.write_record(run_dir, result)
    intact = record(run_dir).read_text()
    damaged = DAMAGE[damage](intact)
    assert damaged != intact
    for i in (1, 2):
        record(run_dir).write_text(damaged)
        records, complaints = store.read_records(run_dir, {"abc": 1})
        assert records == {} and len(complaints) == 1
        assert not record(run_dir).exists()
        assert record(run_dir).with_name(f"abc.json.corrupt-{i}").read_text() == damaged


def test_the_naive_reader_takes_a_changed_cell_for_an_answer(run_dir, result):
    store.write_record(run_dir, result)
    damaged = json.loads(flip_a_cell(record(run_dir).read_text()))
    taken = store.result_from_dict(damaged["result"], "abc", 1)  # all checks but the checksum
    assert taken.attempts[0][0].tolist() == [[1, 4]]


@pytest.mark.parametrize(
    ("change", "n_test", "told"),
    [
        ({"task_id": "xyz"}, 1, "'xyz' where abc belongs"),
        ({}, 2, "1 attempts for 2 test inputs"),
        ({"status": "done"}, 1, "status 'done'"),
        ({"attempts": [[[[1]], [[10]]]]}, 1, "holds 10"),
        ({"attempts": [[[[1]]]]}, 1, "malformed"),
        ({"candidates": [[{"grid": [[1]]}]]}, 1, "malformed"),
        ({"notes": None}, 1, "malformed"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(result, change, n_test, told):
    with pytest.raises(CheckpointError, match=told):
        store.result_from_dict(store.result_to_dict(result) | change, "abc", n_test)


def naive_write(path, data):
    with path.open("wb") as file:
        file.write(data[:2])
        os.fsync(file.fileno())
        file.write(data[2:])


@pytest.mark.parametrize(
    ("write", "step", "survives"),
    [(store.write_atomic, "fsync", True), (store.write_atomic, "replace", True), (naive_write, "fsync", False)],
)
def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, write, step, survives):
    def fail(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        write(path, b"newer")
    assert (path.read_bytes() == b"old") is survives
    assert list(tmp_path.iterdir()) == [path]


def test_stale_temporaries_are_swept(run_dir):
    stale = [run_dir / ".submission.json.1.tmp", run_dir / "tasks" / ".abc.json.1.tmp"]
    others = [run_dir / ".mine.tmp", run_dir / ".5.tmp"]
    for path in (*stale, *others):
        path.write_text("{")
    (run_dir / ".folder.1.tmp").mkdir()
    with store.locked(run_dir):
        assert not any(path.exists() for path in stale) and all(path.exists() for path in others)


def test_a_disk_without_locks_is_not_called_another_process(run_dir, monkeypatch):
    def unable(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store.fcntl, "flock", unable)
    with (
        pytest.raises(InputError, match="cannot be locked .No locks available.; give one on another disk"),
        store.locked(run_dir),
    ):
        pass


HOLDER = """
import sys
from pathlib import Path
from ttt_core.run.store import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_second_process_is_told_who_holds_the_folder(run_dir):
    arguments = [sys.executable, "-c", HOLDER, str(run_dir)]
    environ = environment.worker_environment(os.environ)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as holder:
        holder.stdout.readline()
        with pytest.raises(InputError, match=f"in use by process {holder.pid};"), store.locked(run_dir):
            pass
        holder.kill()
    with store.locked(run_dir):
        pass  # a killed holder holds nothing


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="run folder .*give a folder"), store.locked(tmp_path / "file" / "run"):
        pass


CONFIG = Config()
OTHER = dataclasses.replace(CONFIG, adapt=AdaptConfig(rank=64))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (("c" * 64, "m" * 64, CONFIG, 0, ("a", "b")), "challenges_sha256 was hhhhhhhhhhhh, now it is cccccccccccc"),
        (("h" * 64, "x" * 64, CONFIG, 0, ("a", "b")), "model_sha256 was mmmmmmmmmmmm, now it is xxxxxxxxxxxx"),
        (("h" * 64, "m" * 64, OTHER, 1, ("a", "b")), "config.adapt.rank was 32, now it is 64"),
        (("h" * 64, "m" * 64, CONFIG, 1, ("a", "b")), "seed was 0, now it is 1"),
        (("h" * 64, "m" * 64, CONFIG, 0, ("a",)), "tasks was 2 ids, b, now it is 1 ids;"),
    ],
)
def test_another_receipt_is_refused_by_its_first_difference(run_dir, result, other, told):
    first = receipt.identity("h" * 64, "m" * 64, CONFIG, 0, ("b", "a"))
    receipt.write(run_dir, {"identity": first, "tasks": {}})
    if other[0] == first["challenges_sha256"]:  # without a record there is nothing to be mixed up
        receipt.require_same(run_dir, receipt.identity(*other))
        store.write_record(run_dir, result)
    receipt.require_same(run_dir, first)
    with pytest.raises(InputError, match=told):
        receipt.require_same(run_dir, receipt.identity(*other))


def test_records_without_receipt_are_not_mixed_in(run_dir, result):
    receipt.require_same(run_dir, {})
    store.write_record(run_dir, result)
    with pytest.raises(InputError, match="records but no run.json"):
        receipt.require_same(run_dir, {})


def test_a_fingerprint_sees_every_byte_and_name_that_determines_results(tmp_path):
    (tmp_path / "a.json").write_text("1")
    first = environment.fingerprint(tmp_path)
    (tmp_path / "a.json").write_text("2")
    second = environment.fingerprint(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "a.safetensors")
    third = environment.fingerprint(tmp_path)
    assert len({first, second, third}) == 3
    (tmp_path / "train_log.png").touch()  # what `report` writes beside a model
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").touch()  # of a run in its own folder of challenges
    assert environment.fingerprint(tmp_path) == third
    with pytest.raises(InputError, match="cannot be read"):
        environment.fingerprint(tmp_path / "missing")


def test_a_worker_environment_is_offline_and_without_secrets():
    secrets = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KAGGLE_KEY", "KAGGLE_USERNAME", "X_API_KEY", "MY_SECRET"}
    clean = environment.worker_environment(dict.fromkeys(secrets, "canary-1234") | {"PATH": "/bin", "PYTHONPATH": "p"})
    assert not secrets & set(clean) and "canary-1234" not in clean.values()
    assert clean["HF_HUB_OFFLINE"] == "1" and clean["PATH"] == "/bin" and clean["PYTHONPATH"].endswith(":p")


def test_redaction():
    text = environment.redact("bad token canary-1234, hf_" + "a" * 30, {"HF_TOKEN": "canary-1234"})
    assert text == "bad token ***, ***"
