"""A whole run with the real solver without any network, opening no internet socket; `make faults`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
CUT_OFF = ["unshare", "-rn"]
INTERNET = re.compile(r"socket\(AF_INET6?\b")
pytestmark = pytest.mark.skipif(
    not shutil.which("strace") or subprocess.run([*CUT_OFF, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs strace, and unshare -rn",
)


def traced(place, command: list[str], **environ: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """The run of `command` cut off from every network, and the internet sockets it or a child opened."""
    log = place.root / "sockets"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=socket", "-o", str(log)]
    environ = {**os.environ, "PYTHONPATH": f"{HERE}:{ROOT}", "OMP_NUM_THREADS": "1", **environ}
    ran = subprocess.run([*CUT_OFF, *strace, *command], env=environ, capture_output=True, text=True, check=False)
    return ran, [line for line in log.read_text().splitlines() if INTERNET.search(line)]


def test_a_whole_run_opens_no_internet_socket(place):
    command = [sys.executable, "-m", "ttt_core", "solve", str(place.root / "challenges.json")]
    command += ["--model", str(ROOT / "kaggle_dataset/model"), "--out", str(place.root / "run"), "--budget-s", "240"]
    command += ["--tasks", "1", "--set", "adapt.steps=2", "--set", "decode.views=2", "--set", "rescore.views=2"]
    ran, sockets = traced(place, command)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((place.root / "run" / "run.json").read_text())["counts"]["ok"] == 1 and sockets == []


def test_a_solver_that_opens_one_is_caught(place):
    paths = [str(place.root / name) for name in ("challenges.json", "model", "run")]
    command = [sys.executable, str(HERE / "runner.py"), *paths]
    assert traced(place, command)[1] == []
    _, sockets = traced(place, [*command[:-1], str(place.root / "other")], ACTS=json.dumps({"b": "connect"}))
    assert len(sockets) == 1
