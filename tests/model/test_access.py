"""Models from a hub: the real huggingface_hub against a hub on loopback, which asks for tokens and breaks off."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import IPython
import pytest

from ttt_core.errors import ModelError
from ttt_core.model import access

ROOT = Path(__file__).parents[2]
COMMIT = "c" * 40
TOKEN = "hf_" + "Good" * 6
WEIGHTS = bytes(range(256)) * 94_000  # 24 MB: huggingface_hub writes pieces of 10 MB
FILES = {
    "config.json": b'{"model_type": "gpt2"}',
    "model.safetensors": WEIGHTS,
    "code.py": b"raise SystemExit",
    "old.bin": b"\x80",
}
OTHERS = ["consolidated.safetensors", "original/model.safetensors", "checkpoint-100/trainer_state.json"]
FILES |= dict.fromkeys(OTHERS, b"{}")
HELD = {  # by repositories that hold no model
    "open/pickled": ["config.json", "old.bin"],
    "open/adapter": ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"],
    "open/folder": ["README.md", "model/config.json", "model/model.safetensors"],
    "open/consolidated": ["config.json", "consolidated.safetensors"],
}
REPOS = {"open/model": "", "closed/model": TOKEN, **dict.fromkeys(HELD, "")}  # id to the token it wants


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that a download needs. `server.cut`: break the next transfer of weights off midway. `busy`: answer everything with this status, and `page`."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if self.server.busy:
            return self.send(self.server.busy, self.server.page)
        repo = next((name for name in REPOS if f"/{name}" in path), None)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server.seen.append((path, given, self.headers.get("Range", "")))
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        opened = not REPOS[repo] or given == REPOS[repo]
        if path.endswith("/auth-check"):
            return self.send(200, b"{}") if opened else self.refuse(403, "GatedRepo")
        names = HELD.get(repo, list(FILES))
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            return self.file(FILES.get(name, b"{}")) if opened else self.refuse(403, "GatedRepo")
        if "/tree/" in path:
            given = [(name, FILES.get(name, b"{}")) for name in names]
            tree = [{"type": "file", "path": n, "size": len(held), "oid": self.etag(held)} for n, held in given]
            return self.send(200, json.dumps(tree).encode())
        info = {
            "id": repo,
            "sha": COMMIT,
            "siblings": [{"rfilename": name} for name in names],
            "gated": bool(REPOS[repo]),
        }
        self.send(200, json.dumps(info).encode())

    def etag(self, content: bytes) -> str:
        return hashlib.sha1(content).hexdigest()

    def file(self, content: bytes):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        for name, value in {
            "ETag": f'"{self.etag(content)}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if content is WEIGHTS and self.server.cut:
            self.server.cut = False
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            return self.connection.shutdown(2)
        self.wfile.write(content[start:])

    def refuse(self, status: int, code: str):
        self.send(status, b'{"error": "no"}', {"X-Error-Code": code})

    def send(self, status: int, body: bytes, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.cut, server.busy, server.page = [], False, 0, b"{}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


RESOLVE = "found = access.resolve({!r}, fallback={}); print(found.path); print(found.note, file=sys.stderr)"
EXAMINE = "print(access.examine({!r}, access.find_token(os.environ)))"


def ask(hub, tmp_path, model, *, offline="0", port=None, fallback=False, call=RESOLVE, **environ) -> tuple[str, str]:
    """(path or "", message) of `resolve` in a process of its own, whose hub is the one on loopback."""
    code = (
        "import os, sys; from ttt_core.errors import TTTError; from ttt_core.model import access\n"
        f"try: {call.format(model, fallback)}\n"
        "except TTTError as error: print(error, file=sys.stderr)"
    )
    base = {name: value for name, value in os.environ.items() if name not in access.TOKENS}
    base |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port or hub.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": offline,
    }
    base |= {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "no_proxy": "*",
        **environ,
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=base, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip(), ran.stderr.strip()


def test_a_public_model_comes_whole_and_without_code_pickles_or_second_copies_and_then_offline(hub, tmp_path):
    path, _ = ask(hub, tmp_path, "open/model")
    assert (Path(path) / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in Path(path).iterdir()} == {"config.json", "model.safetensors"}
    assert not any(name in asked for name in OTHERS for asked, _, _ in hub.seen)
    assert all(token == "" for _, token, _ in hub.seen)
    before = len(hub.seen)
    assert ask(hub, tmp_path, "open/model", offline="1")[0] == path and len(hub.seen) == before
    assert ask(hub, tmp_path, "open/model", port=1)[0] == path  # the hub is gone


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_was_downloaded_is_taken_where_the_hub_does_not_answer_now(hub, tmp_path, status):
    path, _ = ask(hub, tmp_path, "open/model")
    hub.busy = status
    assert path and ask(hub, tmp_path, "open/model")[0] == path
    (tmp_path / "elsewhere").mkdir()
    _, told = ask(hub, tmp_path / "elsewhere", "open/model")
    assert f"out of reach (status {status})" in told


def test_a_network_that_wants_a_login_counts_as_a_hub_out_of_reach(hub, tmp_path):
    hub.busy, hub.page = 200, b"<html>log in first</html>"
    assert "out of reach (" in ask(hub, tmp_path, "open/model")[1]
    path, note = ask(hub, tmp_path, "open/model", fallback=True)
    assert Path(path) == access.bundled() and "fallback to the bundled base" in note


def test_a_cache_that_cannot_be_used_is_named_and_fallen_back_from(hub, tmp_path):
    (tmp_path / "hf").touch()  # where a folder should be
    assert "cannot be downloaded (Not a directory" in ask(hub, tmp_path, "open/model")[1]
    path, note = ask(hub, tmp_path, "open/model", fallback=True)
    assert Path(path) == access.bundled() and "set HF_HOME" in note


def test_a_gated_model_that_was_downloaded_is_taken_without_its_token(hub, tmp_path):
    path, _ = ask(hub, tmp_path, "closed/model", HF_TOKEN=TOKEN)
    assert path and ask(hub, tmp_path, "closed/model")[0] == path


def test_a_gated_model_opens_to_its_token_from_any_place_and_to_no_other(hub, tmp_path):
    path, message = ask(hub, tmp_path, "closed/model")
    assert path == "" and "gated" in message and "https://huggingface.co/closed/model" in message
    assert "no token was found" in message and "Qwen/Qwen3-0.6B" in message
    wrong = "hf_" + "Evil" * 6
    _, message = ask(hub, tmp_path, "closed/model", HF_TOKEN=wrong)
    assert "does not open it" in message and wrong not in message
    (tmp_path / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    _, message = ask(hub, tmp_path, "closed/model", HUGGINGFACE_TOKEN=wrong)
    assert "does not open it" in message  # the environment goes before .env
    path, _ = ask(hub, tmp_path, "closed/model")
    assert (Path(path) / "model.safetensors").read_bytes() == WEIGHTS


def test_an_interrupted_download_is_resumed(hub, tmp_path):
    hub.cut = True
    path, message = ask(hub, tmp_path, "open/model")
    if not path:  # this release of huggingface_hub does not go on by itself: the next call does
        path, message = ask(hub, tmp_path, "open/model")
    assert (Path(path) / "model.safetensors").read_bytes() == WEIGHTS, message
    assert any(
        asked.startswith("bytes=") and asked != "bytes=0-" for name, _, asked in hub.seen if "safetensors" in name
    )


def snapshot(hf: Path, **files: str) -> Path:
    """A snapshot of open/model in huggingface_hub's cache below `hf`, as a download leaves it."""
    repo = hf / "hub/models--open--model"
    (folder := repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    for name, text in {"config.json": "{}", **files}.items():
        (folder / name).write_text(text)
    return folder


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
BOTH = json.dumps({"weight_map": {"a": ONE, "b": TWO}})


@pytest.mark.parametrize(
    ("files", "is_whole"),
    [
        ({}, False),
        ({ONE: ""}, False),
        ({ONE: "", access.INDEX: BOTH}, False),
        ({ONE: "", TWO: "", access.INDEX: BOTH}, True),
        ({"model.safetensors": ""}, True),
    ],
)
def test_only_a_whole_snapshot_counts_as_downloaded(files, is_whole, tmp_path, monkeypatch):
    import huggingface_hub

    folder = snapshot(tmp_path, **files)  # older releases give it as it is
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *given, **options: str(folder))
    assert access.cached("open/model") == (folder if is_whole else None)


def test_what_a_broken_download_left_is_no_model(hub, tmp_path):
    snapshot(tmp_path / "hf")
    path, note = ask(hub, tmp_path, "open/model", port=1, fallback=True)
    assert Path(path) == access.bundled() and "out of reach" in note


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("no/where", {}, "no such folder here, and no such repository"),
        ("open/pickled", {}, "no safetensors weights"),
        ("open/adapter", {}, "is a PEFT adapter"),
        ("open/folder", {}, "no safetensors weights beside a config.json at its top"),
        ("open/consolidated", {}, "no safetensors weights"),
        ("open/model", {"offline": "1"}, "not in the hub's cache"),
        ("open/model", {"port": 1}, "out of reach"),
        ("not a model", {}, "is not a folder"),
    ],
)
def test_what_cannot_be_had_is_named_with_a_remedy(hub, tmp_path, model, options, message):
    path, told = ask(hub, tmp_path, model, **options)
    assert path == "" and message in told and ";" in told
    assert not any("/resolve/" in asked for asked, _, _ in hub.seen)


def test_the_fallback_is_the_bundled_base_and_says_so(hub, tmp_path):
    path, note = ask(hub, tmp_path, "closed/model", fallback=True)
    assert Path(path) == access.bundled() and "fallback to the bundled base" in note and "gated" in note


def test_the_receipt_of_a_run_says_that_it_fell_back(hub, tmp_path):
    task = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]]}]}
    (tmp_path / "c.json").write_text(json.dumps({"a": task}))
    solve = "from ttt_core.__main__ import main; main(['solve', 'c.json', '--out', 'run', '--budget-s', '0.1',"
    solve += " '--model', {!r}"
    assert "is gated" in ask(hub, tmp_path, "closed/model", call=solve + "])")[1]
    ask(hub, tmp_path, "closed/model", call=solve + ", '--fallback'])")
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert "fallback to the bundled base" in told["model_note"] and told["model"] == str(access.bundled())


def test_a_folder_is_taken_as_it_is(tmp_path):
    with pytest.raises(ModelError, match="has no config.json; give the folder of a model"):
        access.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert access.resolve(str(tmp_path)) == access.Access(tmp_path)
    with pytest.raises(ModelError, match="is not a folder"):
        access.resolve(str(tmp_path / "missing"))


def test_access_is_examined_without_a_download(hub, tmp_path):
    told, _ = ask(hub, tmp_path, "open/model", call=EXAMINE)
    assert told == "public" and not any("resolve" in path for path, _, _ in hub.seen)
    assert ask(hub, tmp_path, "closed/model", call=EXAMINE, HF_TOKEN=TOKEN)[0] == "open to your token"
    assert "is gated" in ask(hub, tmp_path, "closed/model", call=EXAMINE)[1]
    assert "out of reach" in ask(hub, tmp_path, "open/model", call=EXAMINE, port=1)[1]
    ask(hub, tmp_path, "open/model")
    assert "in the hub's cache" in ask(hub, tmp_path, "open/model", call=EXAMINE, port=1)[0]


@pytest.fixture
def secrets(monkeypatch, tmp_path) -> dict:
    """Colab's secrets, as a notebook's kernel reads them; without a kernel google.colab breaks, as on Colab."""
    secrets = {"HUGGINGFACE_TOKEN": TOKEN}

    class Refused(Exception):
        pass

    def get(name):
        assert hasattr(IPython.get_ipython().kernel, "shell")
        if name not in secrets:
            raise Refused
        return secrets[name]

    userdata = types.SimpleNamespace(
        get=get, SecretNotFoundError=Refused, NotebookAccessError=Refused, TimeoutException=Refused
    )
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(userdata=userdata))
    notebook = types.SimpleNamespace(kernel=types.SimpleNamespace(shell=None))
    monkeypatch.setattr(IPython, "get_ipython", lambda: notebook)
    monkeypatch.chdir(tmp_path)
    return secrets


def test_colabs_secrets_come_last_and_one_that_may_not_be_read_is_none(secrets):
    assert access.find_token({}) == TOKEN and access.find_token({"HF_TOKEN": "mine"}) == "mine"
    secrets.clear()
    assert access.find_token({}) is None


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace(kernel=None), types.SimpleNamespace()])
def test_a_program_beside_colabs_notebook_has_no_secrets(secrets, monkeypatch, shell):
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    assert access.colab_secret("HUGGINGFACE_TOKEN") is None and access.find_token({}) is None
    assert access.find_token({"HF_TOKEN": "mine"}) == "mine"


def test_what_surrounds_a_token_is_left_out_and_what_no_header_can_hold_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert access.find_token({"HF_TOKEN": f" {TOKEN}\r\n"}) == TOKEN
    assert access.find_token({"HF_TOKEN": f"{TOKEN}\u00a0"}) == TOKEN
    assert access.find_token({"HF_TOKEN": " "}) is None
    with pytest.raises(ModelError, match="HUGGINGFACE_TOKEN: holds a space or another") as told:
        access.find_token({"HUGGINGFACE_TOKEN": f"{TOKEN}\u00e9"})
    assert TOKEN not in str(told.value)
    (tmp_path / ".env").write_bytes("HF_TOKEN=\u00e9\n".encode("utf-16"))
    with pytest.raises(ModelError, match=r"\.env: cannot be read \(UnicodeDecodeError\); save it as UTF-8"):
        access.find_token({})


@pytest.mark.parametrize(
    ("gated", "nearest"),
    [
        ("meta-llama/Llama-3.2-1B", "Qwen/Qwen3-0.6B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-4B"),
        ("a/b-100m", "openai-community/gpt2"),
        ("a/b", "Qwen/Qwen3-0.6B"),
    ],
)
def test_the_public_models_named_are_of_like_size(gated, nearest):
    assert access.others(gated).split(": ")[1].startswith(nearest)
