"""Hours unattended, in short: `python tests/bench/soak.py --seconds 1800`.

The real solver with the bundled model on the smallest ARC-AGI-1 evaluation tasks: once undisturbed, then again and again
killed at random moments (the run, or only its worker) and continued, until the time is up. After every kill the
submission must be valid; when a run ends, every task must have the answers of the undisturbed one, but for those whose worker
was killed: they were tried again with a smaller profile, or failed. On the CPU in float32 with
few steps, so that deadlines cut nothing. Prints one line a run and a summary; exit code 1 if anything was wrong.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from ttt_core.arc import submission
from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import Challenges, read_challenges
from ttt_core.errors import InputError

SETTINGS = ["model.dtype=float32", "decode.views=4", "rescore.views=4", "second.passes=1"]
LONGEST_S = 600.0  # of one run, whose deadline then cuts nothing


def begin(folder: Path, out: str, options) -> subprocess.Popen:
    """`solve` into folder/out, in a process of its own."""
    command = [sys.executable, "-m", "ttt_core", "solve", str(folder / "arc-agi_evaluation_challenges.json")]
    command += ["--model", str(ROOT / "kaggle_dataset/model"), "--out", str(folder / out), "--budget-s", str(LONGEST_S)]
    command += ["--tasks", str(options.tasks), "--devices", options.devices]
    command += [part for setting in [*SETTINGS, f"adapt.steps={options.steps}"] for part in ("--set", setting)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log)


def workers(run: subprocess.Popen) -> list[int]:
    """The worker processes of a run on one device."""
    told = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in told.splitlines()]
    return [int(pid) for pid, parent, command in rows if int(parent) == run.pid and "ttt_core.run.worker" in command]


def sound(path: Path, challenges: Challenges) -> bool:
    """Whether the submission is valid, or there is none yet."""
    try:
        submission.check(submission.read(path), challenges)
    except InputError:
        return not path.exists()
    return True


def compared(run_dir: Path, expected: dict) -> tuple[int, int]:
    """(tasks whose worker was killed while it was at them, other tasks with other answers than `expected`)."""
    records = {path.stem: json.loads(path.read_text())["result"] for path in (run_dir / "tasks").glob("*.json")}
    struck = {name for name, told in records.items() if told["status"] != "ok" or told["notes"].get("smaller")}
    answers = submission.read(run_dir / "submission.json")
    return len(struck), sum(answers[name] != told for name, told in expected.items() if name not in struck)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--devices", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the undisturbed run, such as for fleet.py --run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    told = {"runs": 0, "run_kills": 0, "worker_kills": 0, "invalid_files": 0, "other_answers": 0, "failed_ends": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_edition("arc-agi-1", folder)
        challenges = read_challenges(folder / "arc-agi_evaluation_challenges.json")
        started = time.monotonic()
        assert begin(folder, "whole", options).wait() == 0, (folder / "log").read_text()
        whole_s, expected = time.monotonic() - started, submission.read(folder / "whole/submission.json")
        print(f"undisturbed: {options.tasks} tasks in {whole_s:.1f} s", flush=True)
        if options.keep:
            shutil.copytree(folder / "whole", options.keep, dirs_exist_ok=True)
        while time.monotonic() - began < options.seconds:
            kills, run = [], begin(folder, "run", options)
            while run.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(timeout=rng.uniform(0.0, 0.7 * whole_s))
                    break
                victims = workers(run) if rng.random() < 0.5 else []
                kills.append("worker" if victims else "run")
                told[f"{kills[-1]}_kills"] += 1
                for pid in victims or [run.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if not victims:
                    run.wait()
                    told["invalid_files"] += not sound(folder / "run/submission.json", challenges)
                    run = begin(folder, "run", options)
            told["runs"] += 1
            told["failed_ends"] += run.returncode != 0
            struck, others = compared(folder / "run", expected)
            told["other_answers"] += others
            print(
                f"run {told['runs']}: {' '.join(kills) or 'no kill'}; {struck} tasks struck, {others} others differ",
                flush=True,
            )
            shutil.rmtree(folder / "run")
    told["seconds"] = round(time.monotonic() - began)
    print(json.dumps(told))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return int(bool(told["invalid_files"] or told["other_answers"] or told["failed_ends"]))


if __name__ == "__main__":
    sys.exit(main())
