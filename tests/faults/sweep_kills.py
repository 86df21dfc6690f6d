"""500 kills of a run: at each write, fsync and rename in turn, and at random moments; `make faults`.

After each kill the submission must be valid, by a checker of this file's own. The same command must then end with the
bytes of an uninterrupted run, and have solved at most the one task twice that a worker was at: tried after each random
kill and each third of the others. The naive twins, which write
files in place or forget what was solved, must be caught by the same checks.
"""

import collections
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
N_TASKS, N_DOUBTS, N_KILLS, N_RANDOM = 25, 8, 400, 100
CALLS = {"write": "write", "fsync": "fsync", "rename": "rename,renameat,renameat2"}
pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace injects the kills; install it")


def challenges() -> dict:
    tasks = {}
    for i in range(N_TASKS):
        pair = {"input": [[i % 10, 1], [2, 3]], "output": [[1, i % 10]]}
        tests = [{"input": [[i % 10, 2, 1]] * (1 + i % 30)}] * (1 + i % 3)
        tasks[f"{i:02}" + ("doubt" if i < N_DOUBTS else "")] = {"train": [pair] * 2, "test": tests}
    return tasks


def fault_of(path: Path, asked: dict) -> str | None:
    """Why Kaggle would refuse the file at `path`; None if it would not, "missing" if there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return "missing"
    try:
        told = json.loads(text, parse_constant=lambda name: 1 / 0, object_pairs_hook=no_twice)
    except (ValueError, ZeroDivisionError) as error:
        return f"not strict JSON: {error}"
    if list(told) != list(asked):
        return "other ids"
    for task_id, answers in told.items():
        if len(answers) != len(asked[task_id]["test"]):
            return f"{task_id}: {len(answers)} answers"
        for answer in answers:
            if set(answer) != {"attempt_1", "attempt_2"} or not all(map(is_grid, answer.values())):
                return f"{task_id}: not two grids"
    return None


def no_twice(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def is_grid(rows) -> bool:
    return (
        type(rows) is list
        and 1 <= len(rows) <= 30
        and all(type(row) is list and len(row) == len(rows[0]) and 1 <= len(row) <= 30 for row in rows)
        and all(type(cell) is int and 0 <= cell <= 9 for row in rows for cell in row)
    )


def kill_after(stop_s: float, pid: int) -> None:
    """Kill the process after so many seconds, and no other that has its number by then."""
    process = os.pidfd_open(pid)
    try:
        time.sleep(stop_s)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


class Place:
    """A folder with challenges and a model, in memory where the system has such a folder, for its disk is quick."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="kills-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.asked = challenges()
        (self.root / "challenges.json").write_text(json.dumps(self.asked))
        (self.root / "model").mkdir()
        (self.root / "model" / "config.json").write_text("{}")
        environ = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
        command = [sys.executable, str(HERE / "runner.py"), "--serve"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.idle: queue.SimpleQueue = queue.SimpleQueue()  # imports of a run and its worker else take most of the time
        for _ in range(os.cpu_count()):
            self.idle.put(subprocess.Popen(command, env=environ, **pipes, text=True, bufsize=1))

    def close(self) -> None:
        while not self.idle.empty():
            with self.idle.get() as server:
                server.stdin.close()
        shutil.rmtree(self.root)

    def run(self, name: str, *options: str, traced_by=(), stop_s: float | None = None) -> int:
        """Run, or continue, the folder `name`; its exit code. traced_by: a command that takes -p PID. stop_s: when it is killed."""
        paths = [str(self.root / part) for part in ("challenges.json", "model", name)]
        log, environ = self.root / f"{name}.log", {"NOTES": str(self.root / f"{name}.notes")}
        environ |= {"TASK_S": "0.005" if stop_s else "0"}
        job = {"arguments": [*paths, *options], "environ": environ, "log": str(log), "is_traced": bool(traced_by)}
        server = self.idle.get()
        try:
            server.stdin.write(json.dumps(job) + "\n")
            pid = int(server.stdout.readline())
            if traced_by:
                subprocess.run([*traced_by, "-p", str(pid)], stderr=subprocess.DEVNULL, check=False)
            if stop_s is not None:
                kill_after(stop_s, pid)
            code = int(server.stdout.readline())
        finally:
            self.idle.put(server)
        assert code in (0, -signal.SIGKILL), log.read_text()
        return code

    def submission(self, name: str) -> Path:
        return self.root / name / "submission.json"

    def turns(self, name: str) -> list[str]:
        lines = (self.root / f"{name}.notes").read_text().splitlines() if (self.root / f"{name}.notes").exists() else []
        return [line for line in lines if not line.startswith("start")]


@pytest.fixture(scope="module")
def place():
    place = Place()
    yield place
    place.close()


@pytest.fixture(scope="module")
def whole(place):
    """The bytes of an uninterrupted run, and how often it makes each call."""
    log = place.root / "calls"
    place.run("whole", traced_by=["strace", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS.values())}"])
    counts = collections.Counter(line.split("(")[0] for line in log.read_text().splitlines())
    assert fault_of(place.submission("whole"), place.asked) is None
    assert len(place.turns("whole")) == N_TASKS + N_DOUBTS
    return place.submission("whole").read_bytes(), {"write": counts["write"], "fsync": counts["fsync"], "rename": sum(
        n for name, n in counts.items() if name.startswith("rename"))}  # fmt: skip


def kill_at(call: str, n: int) -> list[str]:
    inject = f"inject={CALLS[call]}:signal=KILL:when={n}"
    return ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS[call]}", "-e", inject]


def killed(place, name: str, *options: str, **how) -> str | None:
    """The fault of the file that a killed run leaves."""
    place.run(name, *options, **how)
    return fault_of(place.submission(name), place.asked)


def continued(place, name: str, expected: bytes) -> str | None:
    """What is wrong with a killed run once the same command was given again."""
    place.run(name)
    if place.submission(name).read_bytes() != expected:
        return "other bytes than an uninterrupted run"
    again = len(place.turns(name)) - N_TASKS - N_DOUBTS
    return f"{again} turns twice" if again > 1 else None


def sweep(place, kind: str, kills: list[dict], expected: bytes, again: int) -> tuple[list, int]:
    """(what went wrong, how many kills left no file yet). again: each so many-th killed run is continued to its end."""

    def one(number: int) -> tuple:
        name = f"{kind}{number}"
        fault = killed(place, name, **kills[number])
        after = continued(place, name, expected) if number % again == 0 else None
        shutil.rmtree(place.root / name)
        return kills[number], fault, after

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = list(pool.map(one, range(len(kills))))
    wrong = [told for told in ended if told[1] not in (None, "missing") or told[2]]
    return wrong, sum(fault == "missing" for _, fault, _ in ended)


def test_at_each_write_fsync_and_rename(place, whole):
    expected, counts = whole
    kills = [{"traced_by": kill_at(call, n)} for call in CALLS for n in range(1, counts[call] + 1)]
    step = max(1, len(kills) // N_KILLS)
    wrong, missing = sweep(place, "call", kills[::step], expected, again=3)
    print(f"{len(kills[::step])} kills of {counts}: {len(wrong)} wrong, {missing} before the first file")
    assert wrong == [] and len(kills[::step]) >= N_KILLS
    assert missing <= 8  # before the first rename, which makes the first file


def test_at_random_moments(place, whole):
    began = time.monotonic()
    place.run("timed")
    longest, rng = time.monotonic() - began, random.Random(0)
    kills = [{"stop_s": rng.uniform(0, 1.2 * longest)} for _ in range(N_RANDOM)]
    wrong, missing = sweep(place, "moment", kills, whole[0], again=1)
    print(f"{len(kills)} kills within {1.2 * longest:.1f} s: {len(wrong)} wrong, {missing} before the first file")
    assert wrong == [] and missing < N_RANDOM / 2


def test_the_naive_twin_leaves_invalid_files(place, whole):
    faults = [killed(place, f"naive{n}", "--naive", traced_by=kill_at("write", n)) for n in range(2, 40, 3)]
    assert sum(fault not in (None, "missing") for fault in faults) >= 3


def test_the_naive_twin_that_forgets_its_records_solves_tasks_twice(place, whole):
    expected, counts = whole
    place.run("forgets", traced_by=kill_at("rename", counts["rename"] // 2))
    shutil.rmtree(place.root / "forgets" / "tasks")
    (place.root / "forgets" / "tasks").mkdir()
    assert "turns twice" in continued(place, "forgets", expected)
