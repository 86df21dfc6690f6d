"""A token in the environment and in exceptions is in no log, record, receipt, report, notebook or bundle."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build_submission

ROOT = Path(__file__).parents[2]
CANARY = "canary-51f0c2-token"


def leaks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes())


@pytest.fixture
def secret(monkeypatch):
    """The token as a user has it, and under a name that passes it on to workers, as a careless library might."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("LEAK", CANARY)


def test_no_file_of_a_run_holds_it(place, secret, capfd):
    summary = place.run({"a": "print", "b": "raise", "c": "print"}, progress=True)
    assert "went wrong with ***" in summary.outcomes["b"]["reason"]
    assert "log of ***" in (place.root / "run" / "worker.log").read_text()  # it was printed
    assert leaks(place.root / "run") == []
    told = capfd.readouterr()
    assert CANARY not in told.out + told.err and "***" in told.err


def test_the_naive_twin_leaks(place, secret, monkeypatch):
    monkeypatch.setattr("ttt_core.run.dispatch.redact", lambda text, environ: text)
    monkeypatch.setattr("ttt_core.run.supervise.redact", lambda text, environ: text)
    place.run({"a": "print", "b": "raise"})
    assert leaks(place.root / "run") == ["b.json", "report.html", "run.json", "worker.log"]


def test_an_error_of_the_command_line_does_not_tell_it(place, secret):
    command = [sys.executable, "-m", "ttt_core", "solve", str(place.root / "challenges.json"), "--model", CANARY]
    command += ["--out", str(place.root / "run"), "--budget-s", "5"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and ran.stderr.startswith("error: ") and CANARY not in ran.stdout + ran.stderr


def test_workers_do_not_inherit_it(place, secret):
    code = "import os; from ttt_core.run.environment import worker_environment as w; print(w(os.environ))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HF_TOKEN" not in told


@pytest.fixture
def careless(tmp_path, monkeypatch):
    """A copy of what is staged, in which tokens lie where people leave them."""
    root = tmp_path / "careless"
    for part in ("ttt_core", "kaggle_dataset", "notebooks"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "kernel-metadata.json", root)
    (root / "ttt_core/.env").write_text(f"HF_TOKEN={CANARY}\n")
    (root / "kaggle_dataset/model/.netrc").write_text(f"password {CANARY}\n")
    monkeypatch.setattr(build_submission, "ROOT", root)
    return root


def stage(out: Path) -> list[str]:
    """The files that hold the token, once everything is staged."""
    build_submission.stage_dataset(out / "dataset", "somebody")
    build_submission.stage_kernel(out / "kernel", "somebody", ROOT / "notebooks/kaggle.yaml")
    return leaks(out)


def test_no_file_of_the_bundle_holds_it(tmp_path, secret, careless):
    assert stage(tmp_path / "build") == [] and leaks(careless) == [".env", ".netrc"]
    assert any((tmp_path / "build").rglob("*.ipynb"))


def test_the_command_that_builds_the_bundle_does_not_tell_it(tmp_path, secret):
    command = [sys.executable, "build_submission.py", "--owner", "somebody", "--out", str(tmp_path / "build")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert leaks(tmp_path / "build") == [] and CANARY not in ran.stdout + ran.stderr


def test_a_naive_copy_of_the_repository_holds_it(tmp_path, secret, careless, monkeypatch):
    for name in ("STRAY", "STRAY_OF_MODELS"):
        monkeypatch.setattr(build_submission, name, shutil.ignore_patterns("__pycache__"))
    assert stage(tmp_path / "build") == [".env", ".netrc"]


def test_no_notebook_in_the_repository_holds_the_shape_of_one():
    shape = re.compile(rb"\b(hf|ghp|github_pat|glpat|sk)[_-][A-Za-z0-9_-]{16,}")
    assert [path for path in (ROOT / "notebooks").iterdir() if path.is_file() and shape.search(path.read_bytes())] == []
    assert shape.search(b"hf_" + os.urandom(10).hex().encode())
