"""Which devices a word names, and that two of them do what one does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes import running
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import Config
from ttt_core.errors import InputError
from ttt_core.model import host
from ttt_core.run import backends, devices, environment
from ttt_core.run.devices import places
from ttt_core.run.supervise import Job, Outcome

FAULTS = Path(__file__).parents[1] / "faults"


@pytest.mark.parametrize(
    ("spec", "visible", "names"),
    [
        ("cpu", None, ["cpu"]),
        ("cuda", None, ["cuda"]),
        ("cpu:2", None, ["cpu:0", "cpu:1"]),
        ("cuda:1", None, ["cuda:1"]),
        ("cuda:0,3", None, ["cuda:0", "cuda:3"]),
        ("cuda:0,1", "2,3", ["cuda:0", "cuda:1"]),
        ("cuda:0,1,0,0", None, ["cuda:0", "cuda:1", "cuda:0#2", "cuda:0#3"]),
        ("auto", "", ["auto"]),
        ("auto", "5", ["auto"]),
        ("auto", "0,2", ["cuda:0", "cuda:2"]),
        ("cuda", "5", ["cuda"]),
        ("cuda", "0,2", ["cuda:0", "cuda:2"]),
        ("ray://head:10001", None, []),
    ],
)
def test_a_word_names_devices(spec, visible, names):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [place.name for place in places(spec, environ)] == names


@pytest.mark.parametrize("spec", ["auto", "cpu"])
def test_a_cpu_has_as_many_workers_as_suit_the_model(spec):
    environ = {"CUDA_VISIBLE_DEVICES": ""}
    assert [place.name for place in places(spec, environ, workers=3)] == ["cpu:0", "cpu:1", "cpu:2"]
    assert [place.name for place in places("cpu:2", environ, workers=3)] == ["cpu:0", "cpu:1"]
    assert [place.name for place in places("cpu:1", environ, workers=3)] == ["cpu:0"]
    assert [place.name for place in places("auto", {"CUDA_VISIBLE_DEVICES": "0"}, workers=3)] == ["auto"]


@pytest.mark.parametrize(
    ("size", "tasks", "cores", "free_gib", "workers"),
    [(1000, 10, 4, 64, 4), (1000, 3, 4, 64, 3), (1000, 10, 4, 7, 2), (1000, 10, 4, 1, 1), (1000, 999, 64, 999, 16)]
    + [(2**28 + 1, 10, 4, 64, 1), (0, 10, 4, 64, 1)],
)
def test_workers_of_a_small_model_are_as_many_as_cores_tasks_and_memory_allow(
    size, tasks, cores, free_gib, workers, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices.host, "cores", lambda: cores)
    monkeypatch.setattr(devices.host, "free_bytes", lambda: free_gib * 2.0**30)
    if size:
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(size)
    assert devices.cpu_workers(tmp_path, tasks) == workers


def test_one_worker_in_a_container_has_no_more_threads_than_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(host, "cores", lambda: 2)
    assert places("cpu", {}, 1)[0].environ == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setattr(host, "cores", lambda: 64)
    assert places("cpu", {}, 1)[0].environ == {}


@pytest.mark.parametrize(("told", "cores"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 3), ("", 3)])
def test_a_containers_limit_counts(told, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    (tmp_path / "cpu.max").write_text(told)
    assert host.cores(tmp_path) == cores
    (tmp_path / "old" / "cpu").mkdir(parents=True)
    assert host.cores(tmp_path / "old") == 3
    (tmp_path / "old/cpu/cpu.cfs_quota_us").write_text(told.split()[0].replace("max", "-1") if told else "-1")
    (tmp_path / "old/cpu/cpu.cfs_period_us").write_text("100000")
    assert host.cores(tmp_path / "old") == cores


def test_each_gpu_is_alone_and_threads_are_shared_out():
    assert [p.environ["CUDA_VISIBLE_DEVICES"] for p in places("cuda:0,3", {})] == ["0", "3"]
    assert [p.environ["CUDA_VISIBLE_DEVICES"] for p in places("cuda:3,3", {})] == ["3", "3"]
    shown = {"CUDA_VISIBLE_DEVICES": "2, 3"}  # by whoever shares this machine out
    assert [p.environ["CUDA_VISIBLE_DEVICES"] for p in places("cuda:0,1", shown)] == ["2", "3"]
    with pytest.raises(InputError, match="no GPU 2, for CUDA_VISIBLE_DEVICES=2, 3 shows 2"):
        places("cuda:0,2", shown)
    for spec in ("cpu:2", "cuda:0,1", "cuda:0,0"):
        assert {p.environ["OMP_NUM_THREADS"] for p in places(spec, {})} == {str(max(1, host.cores() // 2))}
    assert {p.environ["OMP_NUM_THREADS"] for p in places("cpu:2", {"OMP_NUM_THREADS": "1"})} == {"1"}


@pytest.mark.parametrize("spec", ["", "gpu", "cpu:0", "cuda:", "cuda:a", "cpu:2,3", "ray://"])
def test_other_words_are_refused(spec):
    with pytest.raises(InputError, match="devices .*give"):
        places(spec, {})


def test_without_a_driver_there_are_no_gpus():
    assert devices.visible_gpus({}, query="no-such-program") == ()
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()


def test_a_driver_that_complains_has_no_gpus(tmp_path):
    (tmp_path / "smi").write_text("#!/bin/sh\necho No devices were found\n")
    (tmp_path / "smi").chmod(0o755)
    assert devices.visible_gpus({}, query=str(tmp_path / "smi")) == ()


def test_gpus_too_old_for_torch_do_not_count(tmp_path):
    lines = ("0, NVIDIA GeForce GTX 1060, 6.1", "1, NVIDIA L4, 8.9", "2, Tesla T4, 7.5", "3, NVIDIA L4, [N/A]")
    (tmp_path / "smi").write_text("#!/bin/sh\nprintf '%b' '" + "\\n".join(lines) + "'\n")
    (tmp_path / "smi").chmod(0o755)
    assert devices.visible_gpus({}, query=str(tmp_path / "smi")) == ("1", "2", "3")


def test_without_ray_a_cluster_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "version", lambda package: "absent")
    with (
        pytest.raises(InputError, match="pip install 'ray"),
        backends.opened("ray://head:10001", {}, tmp_path, lambda: False, print),
    ):
        pass


class Slow:
    """A device whose first supervisor does not come back until it is released."""

    made: list = []

    def __init__(self, setup, log, environ):
        self.released, self.ended, self.number = threading.Event(), threading.Event(), len(Slow.made)
        Slow.made.append(self)

    def start(self, within_s):
        if self.number == 0:
            self.released.wait(30)
        return Outcome("ready", str(self.number))

    def solve(self, job):
        raise ZeroDivisionError("a fault of the supervisor's own")

    def end(self):
        self.ended.set()


def test_a_device_that_does_not_answer_is_replaced_and_what_it_says_later_is_not_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "Device", Slow)
    monkeypatch.setattr(Slow, "made", [])
    with backends.opened("cpu:2", {}, tmp_path, lambda: False, print) as backend:
        backend.begin("cpu:0", "start", 1.0, 0.1)
        told = next(filter(None, (backend.ended() for _ in range(100))))
        assert [(name, outcome.kind) for name, outcome in told] == [("cpu:0", "dead")]
        assert "does not answer" in told[0][1].reason
        backend.begin("cpu:0", "start", 1.0, 20.0)
        told = next(filter(None, (backend.ended() for _ in range(100))))
        assert [(name, outcome.reason) for name, outcome in told] == [("cpu:0", "1")]
        Slow.made[0].released.set()
        assert Slow.made[0].ended.wait(10) and not any(backend.ended() for _ in range(3))
        task = Task("t", (), (Pair(np.zeros((1, 1), np.uint8)),))
        backend.begin("cpu:0", "solve", Job((task,), Config(), 0, 1.0, 1.0), 20.0)
        backend.begin("cpu:1", "start", 1.0, 20.0)
        told = dict(backend.ended() + backend.ended())  # both, however late they are asked for
        assert told["cpu:1"].kind == "ready" and told["cpu:0"].is_system and not told["cpu:0"].is_alive
        assert "failed (ZeroDivisionError: a fault" in told["cpu:0"].results[0].reason
    assert all(device.ended.wait(10) for device in Slow.made)


# Two devices in runs

TASKS = [f"t{i}" for i in range(8)] + ["u-doubt"]
ACTS = {"t1": "once kill", "t2": "raise", "t5": "stop", "t4": "once abort", "t3": "print"}


def place_at(root: Path) -> list[str]:
    pairs = [{"input": [[i, 1]], "output": [[1, i]]} for i in range(1, 4)]
    tasks = {name: {"train": pairs[: 1 + i % 3], "test": [{"input": [[i, 2]]}]} for i, name in enumerate(TASKS)}
    (root / "challenges.json").write_text(json.dumps(tasks))
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text("{}")
    return [str(root / name) for name in ("challenges.json", "model")]


def begin(root: Path, out: str, spec: str, acts=ACTS, **environ: str) -> subprocess.Popen:
    environ = {"PYTHONPATH": f"{FAULTS}:{FAULTS.parents[1]}", "ACTS": json.dumps(acts), **environ}
    environ |= {"HF_TOKEN": "canary-51f0c2", "NOTES": str(root / f"{out}.notes"), "GRACE_S": "0.2", "BUDGET_S": "120"}
    command = [sys.executable, str(FAULTS / "runner.py"), str(root / "challenges.json"), str(root / "model")]
    return subprocess.Popen(
        [*command, str(root / out), "--devices", spec], env=os.environ | environ, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def records(folder: Path) -> dict:
    told = {file.stem: json.loads(file.read_text())["result"] for file in sorted((folder / "tasks").glob("*.json"))}
    for record in told.values():
        record.pop("seconds"), record.pop("peak_gib")
        record["notes"] = {k: v for k, v in record["notes"].items() if k in ("passes", "smaller")}
        record["reason"] = record["reason"].split(" of ")[0]  # a limit differs
    return told


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run, faults included, on one device and on two."""
    root = tmp_path_factory.mktemp("devices")
    place_at(root)
    told = {}
    for out, spec, workers in (("one", "cpu", "1"), ("two", "cpu:2", "2")):
        ran = begin(root, out, spec, TOGETHER=workers, TASK_S="0.05")
        out_text, err = ran.communicate(timeout=290)
        assert ran.returncode == 0, err
        told[out] = out_text.splitlines()[-1]
    return root, told


def test_two_devices_write_the_records_of_one(both):
    root, told = both
    assert records(root / "one") == records(root / "two") and told["one"] == told["two"]
    assert (root / "one" / "submission.json").read_bytes() == (root / "two" / "submission.json").read_bytes()
    devices_used = {row["device"] for row in json.loads((root / "two" / "run.json").read_text())["tasks"].values()}
    assert devices_used == {"cpu:0", "cpu:1"}


def test_nothing_is_left_behind_and_workers_have_no_token(both):
    root, _ = both
    workers = [int(line.split()[1]) for line in (root / "two.notes").read_text().splitlines() if "start" in line]
    assert len(workers) > 2 and not any(map(running, workers))
    files = [path for path in (root / "two").rglob("*") if path.is_file()]
    assert not [path for path in files if b"canary-51f0c2" in path.read_bytes()]


def test_a_signal_ends_both_devices_and_builds(tmp_path):
    place_at(tmp_path)
    process = begin(tmp_path, "run", "cpu:2", acts={"t7": "sleep", "u-doubt": "sleep"})
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/tasks/t0.json").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert time.monotonic() - began < 10
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["stopped"] == "stopped by SIGTERM" and list(json.loads((tmp_path / "run/submission.json").read_text()))


def test_a_cluster_that_is_not_there_is_one_error_and_the_file_is_valid(tmp_path):
    if environment.version("ray") == "absent":
        pytest.skip("no Ray here; pip install 'ray[client]'")
    place_at(tmp_path)
    process = begin(tmp_path, "run", "ray://127.0.0.1:1", RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S="1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "InputError: devices ray://127.0.0.1:1: Ray cannot be reached" in err
    assert len(json.loads((tmp_path / "run" / "submission.json").read_text())) == len(TASKS)
