"""The push, with the real kaggle package, to a Kaggle on loopback; nothing beyond loopback can be reached."""

import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import ttt_core
from tests.kaggle.fake_kaggle import SUBMISSION, TOKEN, USER, FakeKaggle, Reply
from ttt_core.errors import InputError, PushError
from ttt_core.run import environment, kaggle_client, kaggle_push

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden_requests.json")
VOLATILE = {"lastModifiedEpochSeconds", "contentLength"}
GUARD = """
import socket
connect = socket.socket.connect
def only_loopback(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        raise OSError(f"no internet in this test: {address}")
    return connect(self, address)
socket.socket.connect = only_loopback
"""
PUSH = """
import json, sys
from pathlib import Path
from ttt_core.errors import TTTError
from ttt_core.run import kaggle_client, kaggle_push
patience = kaggle_client.Patience(**json.loads(sys.argv[2]))
try:
    kaggle_push.push(Path(sys.argv[1]), kaggle_client.connect(patience), patience)
except TTTError as error:
    raise SystemExit(f"error: {error}")
"""
QUICK = {"reply_s": 10, "upload_s": 20, "dataset_s": 10, "kernel_s": 10, "poll_s": 0.02, "settle_s": 0.1, "tries": 3}
DATASET, KERNEL = "someone/arc-ttt-core", "someone/arc-test-time-training"


@pytest.fixture
def kaggle():
    server = FakeKaggle()
    yield server
    server.shutdown()
    server.server_close()
    assert server.outside == []


@pytest.fixture
def out(tmp_path) -> Path:
    """A tiny staged folder, in the shape of a real one."""
    files = {
        "dataset/ttt_core/arc/tasks.py": "x = 1\n" * 50_000,
        "dataset/ttt_core/errors.py": "",
        "dataset/MANIFEST.json": "{}",
        "dataset/dataset-metadata.json": json.dumps(
            {"id": DATASET, "title": "ARC TTT core", "licenses": [{"name": "apache-2.0"}]}
        ),
        "kernel/submission.ipynb": json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}),
        "kernel/kernel-metadata.json": (ROOT / "kernel-metadata.json").read_text().replace("OWNER", USER),
    }
    for name, text in files.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "out"


def environ(server, tmp_path: Path, token: str = TOKEN) -> dict[str, str]:
    (guard := tmp_path / "guard").mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD)
    proxy = f"http://127.0.0.1:{server.server_port}"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        **({"KAGGLE_API_TOKEN": token} if token else {}),
        **dict.fromkeys(("http_proxy", "https_proxy"), proxy),
        "PYTHONPATH": f"{guard}:{ROOT}",
    }


def push(server, out: Path, token: str = TOKEN, **patience) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PUSH, out, json.dumps(QUICK | patience)]
    env = environ(server, out.parent, token)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def failed(ran: subprocess.CompletedProcess) -> str:
    """The one line that a failed push leaves, which never holds the token."""
    assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    assert TOKEN not in ran.stdout + ran.stderr
    return ran.stderr[ran.stderr.index("error: ") :]


def golden(asked: list) -> list:
    """Requests without what differs from run to run: times, version, order of a folder's files, repetitions."""

    def fixed(value):
        if isinstance(value, dict):
            return {key: fixed(v) for key, v in value.items() if key not in VOLATILE}
        if isinstance(value, list):
            return sorted(map(fixed, value), key=json.dumps)
        return value.replace(ttt_core.__version__, "VERSION") if isinstance(value, str) else value

    requests = [[route, fixed(body)] for route, body in asked if route != "IntrospectToken"]
    uploads = sorted((r for r in requests if r[0] == "StartBlobUpload"), key=lambda r: r[1]["name"])
    requests = [uploads.pop(0) if route == "StartBlobUpload" else [route, body] for route, body in requests]
    return [request for request, _ in itertools.groupby(requests)]


@pytest.mark.parametrize("name", ["submission.json", "worker.log", "worker-cuda-0.log", "worker-cuda-0#2.log"])
def test_what_a_run_tells_is_fetched(name):
    assert re.match(kaggle_push.OUTPUTS, name)


def test_a_first_push_and_a_second_send_the_golden_requests_and_every_byte(kaggle, out):
    first = push(kaggle, out)
    assert first.returncode == 0, first.stderr
    created = golden(kaggle.asked)
    kaggle.asked.clear()
    assert push(kaggle, out).returncode == 0
    seen = {"first": created, "second": golden(kaggle.asked)}
    assert seen == json.loads(GOLDEN.read_text())
    with zipfile.ZipFile(io.BytesIO(kaggle.blobs["ttt_core.zip"][1])) as archive:
        assert archive.read("arc/tasks.py") == (out / "dataset/ttt_core/arc/tasks.py").read_bytes()
        assert sorted(archive.namelist()) == ["arc/tasks.py", "errors.py"]
    assert kaggle.blobs["MANIFEST.json"][1] == b"{}"
    assert json.loads((out / "output/submission.json").read_text()) == SUBMISSION
    assert "all is well" in (out / "output/arc-test-time-training.log").read_text()
    assert not (out / "output/other.txt").exists()
    assert (
        "version 1 is ready" in first.stdout and "version 3 runs" in first.stdout and "valid submission" in first.stdout
    )


def test_the_whole_command_builds_checks_and_pushes_for_the_account_it_finds(kaggle, tmp_path):
    kaggle.scripts["GetKernelSessionStatus"] = [Reply({"status": "RUNNING"})]
    command = [sys.executable, ROOT / "build_submission.py", "--push", "--out", tmp_path / "out"]
    ran = subprocess.run(command, env=environ(kaggle, tmp_path), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    with zipfile.ZipFile(io.BytesIO(kaggle.blobs["model.zip"][1])) as archive:
        weights = sorted((ROOT / "kaggle_dataset/model").glob("*.safetensors"))
        assert weights and all(archive.read(file.name) == file.read_bytes() for file in weights)
    saved = dict(kaggle.asked)["SaveKernel"]
    assert saved["slug"] == KERNEL and saved["enableInternet"] is False and saved["datasetDataSources"] == [DATASET]
    assert "/kaggle/working" in saved["text"]  # the profile is baked in


@pytest.mark.parametrize(
    ("route", "reply", "message"),
    [
        ("CreateDataset", {"status": "error", "error": "title in use"}, "title in use"),
        ("SaveKernel", {"error": "Maximum batch GPU session count reached"}, "Maximum batch GPU"),
        (
            "SaveKernel",
            {"versionNumber": 1, "invalidDatasetSources": [DATASET]},
            "dataset_sources someone/arc-ttt-core",
        ),
        ("SaveKernel", {"versionNumber": 1, "invalidCompetitionSources": ["arc"]}, "competition_sources arc"),
        ("SaveKernel", {"versionNumber": 1, "invalidKernelSources": ["a/b"]}, "kernel_sources a/b"),
        ("SaveKernel", {"versionNumber": 1, "invalidModelSources": ["a/b/c/d/1"]}, "model_sources a/b/c/d/1"),
        ("SaveKernel", {}, "without a version number"),
    ],
)
def test_a_refusal_inside_a_reply_of_status_200_fails(kaggle, out, route, reply, message):
    kaggle.scripts[route] = [Reply(reply)]
    assert message in failed(push(kaggle, out))


@pytest.mark.parametrize(
    ("arguments", "route", "reply"),
    [
        (
            ["kernels", "push", "-p", "kernel"],
            "SaveKernel",
            Reply({"error": "Maximum batch GPU session count reached"}),
        ),
        (["datasets", "create", "-p", "dataset", "--dir-mode", "zip"], "upload", Reply({}, 400)),
    ],
)
def test_the_command_line_tool_exits_0_on_a_refusal_and_on_a_lost_file(kaggle, out, arguments, route, reply):
    """The naive twin: why the push does not call it."""
    kaggle.scripts[route] = [reply]
    command = [sys.executable, "-m", "kaggle", *arguments]
    ran = subprocess.run(command, cwd=out, env=environ(kaggle, out.parent), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and not any(kaggle.scripts.values())
    assert len(dict(kaggle.asked).get("CreateDataset", {"files": [1]})["files"]) == 1  # of two


@pytest.mark.parametrize(
    ("route", "replies", "message"),
    [
        ("SaveKernel", [Reply({"message": "rules not accepted"}, 403)], "rules not accepted"),
        ("SaveKernel", [Reply({"message": "broken"}, 500)], "status 500 (broken); Kaggle fails"),
        ("SaveKernel", [Reply({"message": "slow down"}, 429, {"Retry-After": "0"})] * 3, "too many requests"),
        ("SaveKernel", [Reply({"message": "slow down"}, 429, {"Retry-After": "900"})], "too many requests"),
        ("SaveKernel", [Reply(drop=True)] * 3, "out of reach"),
        ("GetDatasetStatus", [Reply({"message": "broken"}, 500)] * 3, "status 500"),
        ("upload", [Reply({}, 400)], "1 of 2 uploads succeeded"),
        ("GetKernelSessionStatus", [Reply({"status": "NEVER_HEARD_OF"})], "never_heard_of"),
    ],
)
def test_a_failing_server_fails_the_push_in_one_line(kaggle, out, route, replies, message):
    kaggle.scripts[route] = list(replies)
    assert message.lower() in failed(push(kaggle, out)).lower()
    assert ("SaveKernel" in kaggle.routes()) == (route in ("SaveKernel", "GetKernelSessionStatus"))


def test_passing_trouble_is_waited_out(kaggle, out):
    kaggle.versions["arc-ttt-core"] = 4
    late = {"Retry-After": "0"}
    kaggle.scripts = {
        "SaveKernel": [Reply({"message": "slow down"}, 429, late)],
        "GetDatasetStatus": [Reply({}, 502), Reply({"status": "READY"}), Reply({"status": "BLOBS_RECEIVED"})],
        "GetDataset": [Reply({"currentVersionNumber": 4})] * 3,  # of before, still processing, not yet switched over
        "GetKernelSessionStatus": [
            Reply({"status": "QUEUED"}), Reply({}, 503), Reply(drop=True), Reply({"status": "RUNNING"})
        ],
    }  # fmt: skip
    ran = push(kaggle, out)
    assert ran.returncode == 0 and "version 5 is ready" in ran.stdout, ran.stderr
    assert kaggle.routes().count("SaveKernel") == 2 and not any(kaggle.scripts.values())


def test_a_network_that_is_gone_for_long_does_not_end_the_waiting(kaggle, out):
    gone = [Reply(drop=True), Reply({}, 503)] * 4  # more than the tries of one question
    kaggle.scripts["GetKernelSessionStatus"] = [Reply({"status": "RUNNING"}), *gone, Reply({"status": "RUNNING"})]
    ran = push(kaggle, out)
    assert ran.returncode == 0 and not any(kaggle.scripts.values()), ran.stderr


@pytest.mark.parametrize("reply", [Reply(drop=True), Reply({"status": "RUNNING"}), Reply({"message": "no"}, 401)])
def test_who_stops_waiting_says_that_the_run_goes_on_and_how_to_fetch_it(kaggle, out, reply):
    kaggle.scripts["GetKernelSessionStatus"] = [reply] * 99
    told = failed(push(kaggle, out, kernel_s=0.5, settle_s=0))
    assert f"version 3 goes on without this program, and `kaggle kernels output {KERNEL}` fetches" in told


def test_what_the_system_refuses_ends_the_push_in_one_line(kaggle, out):
    (out.parent / ".kaggle/access_token").mkdir(parents=True)
    assert "log in: [Errno 21] Is a directory" in failed(push(kaggle, out, token=""))
    (out / "dataset/ttt_core/lost.py").symlink_to("nowhere")  # as a full disk does, it fails the upload's copy
    assert "upload of dataset" in failed(push(kaggle, out))


def test_what_was_complete_before_the_push_does_not_count(kaggle, out):
    kaggle.scripts["GetKernelSessionStatus"] = [Reply({"status": "COMPLETE"}), *[Reply({"status": "RUNNING"})] * 2]
    assert push(kaggle, out, settle_s=5).returncode == 0
    assert kaggle.routes().count("GetKernelSessionStatus") == 4


@pytest.mark.parametrize(
    ("route", "limit", "message"),
    [
        ("SaveKernel", {"reply_s": 1.5}, "no answer from Kaggle within 1.5 s"),
        ("upload", {"upload_s": 1.5}, "no answer from Kaggle within 1.5 s"),
    ],
)
def test_a_silent_server_ends_the_push_and_the_program(kaggle, out, route, limit, message):
    kaggle.scripts[route] = [Reply(after_s=30)] * 9
    started = time.monotonic()
    assert message in failed(push(kaggle, out, **limit)) and time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("route", "reply", "message"),
    [
        ("GetDatasetStatus", {"status": "BLOBS_RECEIVED"}, "to be ready: not within 0.3 s"),
        ("GetDatasetStatus", {"status": "FAILED"}, "could not process it"),
        ("GetKernelSessionStatus", {"status": "RUNNING"}, "to end: not within 0.3 s"),
    ],
)
def test_what_never_gets_ready_is_given_up(kaggle, out, route, reply, message):
    kaggle.versions["arc-ttt-core"] = 1
    kaggle.scripts[route] = [Reply(reply)] * 99
    assert message in failed(push(kaggle, out, dataset_s=0.3, kernel_s=0.3, settle_s=0))


def test_a_failure_of_the_version_before_is_waited_out(kaggle, out):
    kaggle.versions["arc-ttt-core"] = 1
    kaggle.scripts["GetDatasetStatus"] = [Reply({"status": "FAILED"})] * 3
    kaggle.scripts["GetDataset"] = [Reply({"currentVersionNumber": 1})] * 3
    assert push(kaggle, out, settle_s=5).returncode == 0


def test_a_model_without_owner_is_refused_before_anything_is_copied(tmp_path):
    with pytest.raises(InputError, match="dataset id 'arc-model'"):
        kaggle_push.upload_model(tmp_path / "not even there", "arc-model")


UPLOAD = """
import sys
from ttt_core.errors import TTTError
from ttt_core.run import kaggle_push
try:
    kaggle_push.require_upload(sys.argv[1])
except TTTError as error:
    raise SystemExit(f"error: {error}")
"""


def test_an_upload_that_would_be_refused_is_told_before_there_is_anything_to_upload(kaggle, out):
    def required(ref: str, token: str = TOKEN) -> subprocess.CompletedProcess:
        env = environ(kaggle, out.parent, token)
        return subprocess.run([sys.executable, "-c", UPLOAD, ref], env=env, capture_output=True, text=True, timeout=60)

    assert required(f"{USER}/arc-model").returncode == 0
    assert "dataset title 'arc'" in failed(required(f"{USER}/arc"))
    assert f"the credentials are those of {USER}" in failed(required("stranger/arc-model"))
    assert "Kaggle credentials: none" in failed(required(f"{USER}/arc-model", token=""))


def test_an_older_kaggle_package_is_refused(monkeypatch):
    monkeypatch.setattr(environment, "version", lambda package: "1.7.4.5")
    with pytest.raises(PushError, match="kaggle: 1.7.4.5 is too old; pip install --upgrade 'kaggle>=2.2'"):
        kaggle_client.connect()


def test_a_run_that_fails_shows_the_end_of_its_log(kaggle, out):
    lines = [{"stream_name": "stderr", "time": n, "data": f"line {n}\n"} for n in range(40)]
    kaggle.log = json.dumps(lines)
    kaggle.scripts["GetKernelSessionStatus"] = [
        Reply({"status": "RUNNING"}),
        Reply({"status": "ERROR", "failureMessage": "x9"}),
    ]
    told = failed(push(kaggle, out))
    assert "ERROR x9" in told and "line 39" in told and "line 20" not in told


@pytest.mark.parametrize("content", ["<html>expired</html>", '{"0a1b2c3d": [{"attempt_1": [[0]]}]}', None])
def test_an_output_without_a_valid_submission_fails(kaggle, out, content):
    kaggle.output = {} if content is None else {"submission.json": content}
    assert "left no valid submission" in failed(push(kaggle, out))


def test_credentials_come_from_the_clients_own_places_and_must_be_the_owners(kaggle, out):
    assert "Kaggle credentials: none" in failed(push(kaggle, out, token=""))
    assert "Kaggle credentials: none" in failed(push(kaggle, out, token="KGAT_" + "9f" * 16))
    (out.parent / ".kaggle").mkdir(exist_ok=True)
    (out.parent / ".kaggle/access_token").write_text(TOKEN)
    assert push(kaggle, out, token="").returncode == 0
    path = out / "kernel/kernel-metadata.json"
    path.write_text(path.read_text().replace(USER, "stranger"))
    assert "give --owner someone" in failed(push(kaggle, out))


def test_the_guard_of_these_tests_keeps_the_internet_out(kaggle, tmp_path):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    ran = subprocess.run([sys.executable, "-c", code], env=environ(kaggle, tmp_path), capture_output=True, text=True)
    assert "no internet in this test" in ran.stderr
