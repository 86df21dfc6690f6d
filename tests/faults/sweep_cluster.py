"""A run on a Ray cluster of one machine, through Ray's client, does what a run on one device does; `make faults`."""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HOST, HERE = "127.0.0.1", Path(__file__).parent

ACTS = {"a": "once orphan", "b": "once kill", "c": "raise"}  # an orphan kills its supervisor


def free_port() -> int:
    with socket.socket() as file:
        file.bind((HOST, 0))
        return file.getsockname()[1]


@pytest.fixture
def head(place, monkeypatch):
    """The address of a head node on loopback, which knows the stand-in; it ends with the test."""
    if not (importlib.util.find_spec("ray") and importlib.util.find_spec("grpc")):
        pytest.skip("Ray's client is not here; pip install 'ray[client]'")
    monkeypatch.setenv("ACTS", json.dumps(ACTS))  # the cluster's workers have its environment
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # the head wants one; so has a client to bring it
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    port, client = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, (place.root / "head.log").open("wb") as log:
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--include-dashboard=false",
        ]
        command += [f"--node-ip-address={HOST}", f"--port={port}", f"--ray-client-server-port={client}", "--num-cpus=2"]
        command += [
            f"--temp-dir={folder}",
            "--object-store-memory=80000000",
            "--min-worker-port=0",
            "--max-worker-port=0",
        ]
        # gRPC's fork handlers crash Ray's proxy where a thread of it is just then calling
        environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while not listens(client):
                assert process.poll() is None and time.monotonic() < deadline, (place.root / "head.log").read_text()
                time.sleep(0.5)
            yield f"ray://{HOST}:{client}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def listens(port: int) -> bool:
    with socket.socket() as file:
        return file.connect_ex((HOST, port)) == 0


def test_a_cluster_writes_the_records_of_one_device(place, head, monkeypatch):
    place.run(ACTS, name="one")
    monkeypatch.setenv("HF_TOKEN", "canary-51f0c2")
    paths = [str(place.root / name) for name in ("challenges.json", "model", "run")]
    command = [sys.executable, str(HERE / "runner.py"), *paths, "--devices", head]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines()[-1] == "3 1 0 " and place.records() == place.records("one")
    assert {row["device"] for row in place.receipt()["tasks"].values()} == {"node:0"}
