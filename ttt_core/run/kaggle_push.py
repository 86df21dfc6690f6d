"""Sends a staged dataset and kernel to Kaggle, waits for both, and brings the kernel's log and output back.

In: the folder that `build_submission.py` staged. Not here: how the client is asked (`kaggle_client.py`), checks of what
is staged (`kaggle_checks.py`).
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ttt_core
from ttt_core.arc import submission
from ttt_core.errors import InputError, PushError
from ttt_core.run.curves import PICTURE
from ttt_core.run.environment import MANIFEST, fingerprint
from ttt_core.run.kaggle_checks import title_faults
from ttt_core.run.kaggle_client import WORTH_RETRYING, Patience, ask, complete_uploads, connect, user_name, wait

OUTPUTS = r"^(submission\.json|run\.json|tasks\.png|report\.html|worker[\w#-]*\.log)$"  # of the kernel; its records stay on Kaggle
STRAY_OF_MODELS = shutil.ignore_patterns("checkpoint*", ".*", PICTURE)  # what a training goes on from, and its picture
ENDED = {"COMPLETE", "ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"}
LOG_LINES = 15


def push(out: Path, client, patience: Patience = Patience(), say: Callable[[str], None] = print) -> Path:
    """Dataset and kernel below `out` to Kaggle, one after the other; returns the folder of the kernel's log and output.

    PushError, with what Kaggle said, as soon as anything is refused, fails, or takes longer than `patience`.
    """
    dataset, kernel = (json.loads((out / k / f"{k}-metadata.json").read_text())["id"] for k in ("dataset", "kernel"))
    _require_owner(client, kernel)
    notes = f"ttt_core {ttt_core.__version__}, {fingerprint(out / 'dataset' / MANIFEST)[:12]}"
    push_dataset(client, out / "dataset", dataset, notes, patience, say)
    version = push_kernel(client, out / "kernel", kernel, patience, say)
    return fetch(client, kernel, version, out / "output", patience, say)


def require_upload(ref: str, patience: Patience = Patience()) -> None:
    """InputError or PushError where `upload_model` to `ref` would be refused: for name, package or credentials."""
    _described(ref)
    _require_owner(connect(patience), ref)


def upload_model(model: Path, ref: str, patience: Patience = Patience()) -> str:
    """The model directory, without its checkpoints, as the Kaggle dataset `ref` (OWNER/SLUG); returns its address."""
    metadata = _described(ref)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / ref.partition("/")[2]
        shutil.copytree(model, folder, ignore=STRAY_OF_MODELS)
        (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
        push_dataset(connect(patience), folder, ref, f"model {fingerprint(model / 'config.json')[:12]}", patience)
    return f"https://www.kaggle.com/datasets/{ref}"


def _described(ref: str) -> dict:
    """The metadata of a model's dataset; InputError for a name that Kaggle refuses."""
    title = ref.partition("/")[2].replace("-", " ")
    metadata = {"id": ref, "title": title, "licenses": [{"name": "apache-2.0"}]}
    if faults := title_faults("dataset ", metadata, least=6):
        raise InputError("; ".join(faults))
    return metadata


def _require_owner(client, ref: str) -> None:
    """PushError unless the client's credentials are those of the owner of `ref`."""
    if (owner := ref.partition("/")[0]) != (user := user_name(client)):
        raise PushError(f"owner {owner}: the credentials are those of {user}; give --owner {user}, or {user}/SLUG")


def push_dataset(
    client, folder: Path, ref: str, notes: str, patience: Patience, say: Callable[[str], None] = print
) -> None:
    """Create the dataset, or a version of it where it exists, and wait until kernels can mount it."""
    options = {"patience": patience, "again": WORTH_RETRYING}
    before = ask(f"dataset {ref}", patience.reply_s, _dataset_state, client, ref, **options)
    with complete_uploads(client):
        call, options = client.dataset_create_new, {"quiet": True, "dir_mode": "zip", "patience": patience}
        if before is not None:
            call, options = client.dataset_create_version, options | {"version_notes": notes}
        say(f"dataset {ref}: {'uploading a new version' if before else 'uploading for the first time'}")
        reply = ask(f"upload of dataset {ref}", patience.upload_s, call, str(folder), **options)
    if reply.error or str(reply.status).lower() == "error":
        raise PushError(f"dataset {ref}: Kaggle refused it: {reply.error or reply.status}; nothing was pushed")
    least, pushed = 1 if before is None else before["current_version_number"] + 1, time.monotonic()

    def is_ready(state) -> bool:
        has_failed = bool(state) and state["status"] in ("failed", "deleted")
        is_old = state == before and time.monotonic() - pushed < patience.settle_s  # of the version before, perhaps
        if has_failed and not is_old:
            raise PushError(f"dataset {ref}: Kaggle could not process it ({state['status']}); look at kaggle.com/{ref}")
        return bool(state) and state["status"] == "ready" and state["current_version_number"] >= least

    state = wait(f"dataset {ref} to be ready", is_ready, patience.dataset_s, patience, _dataset_state, client, ref)
    say(f"dataset {ref}: version {state['current_version_number']} is ready")


def push_kernel(client, folder: Path, ref: str, patience: Patience, say: Callable[[str], None] = print) -> int:
    """Push the kernel, which starts its commit run; returns its version."""
    reply = ask(f"push of kernel {ref}", patience.reply_s, client.kernels_push, str(folder), patience=patience)
    if reply.error:
        raise PushError(f"kernel {ref}: Kaggle refused it: {reply.error}")
    for field in ("dataset_sources", "competition_sources", "kernel_sources", "model_sources"):
        if invalid := getattr(reply, f"invalid_{field}"):
            remedy = "it was pushed without; check the name, and that this account may use it"
            raise PushError(f"kernel {ref}: {field} {', '.join(invalid)}: unknown to Kaggle; {remedy}")
    if not reply.version_number:
        raise PushError(f"kernel {ref}: Kaggle answered without a version number; look at kaggle.com/code/{ref}")
    say(f"kernel {ref}: version {reply.version_number} runs, {reply.url}")
    return reply.version_number


def fetch(client, ref: str, version: int, folder: Path, patience: Patience, say: Callable[[str], None] = print) -> Path:
    """Wait for the version's run, and bring its log and output; PushError unless it ended well, with a submission."""
    pushed, was_seen_running = time.monotonic(), False

    def has_ended(state) -> bool:
        nonlocal was_seen_running
        was_seen_running |= state.status.name not in ENDED
        settled = was_seen_running or time.monotonic() - pushed >= patience.settle_s
        return state.status.name in ENDED and settled

    options = {"file_pattern": OUTPUTS, "force": True, "page_size": 100, "again": WORTH_RETRYING}
    try:
        state = wait(f"kernel {ref} to end", has_ended, patience.kernel_s, patience, client.kernels_status, ref)
        shutil.rmtree(folder, ignore_errors=True)
        call = client.kernels_output, ref, str(folder)
        ask(f"output of kernel {ref}", patience.reply_s, *call, patience=patience, **options)
    except PushError as error:
        later = f"`kaggle kernels output {ref}` fetches what it leaves"
        raise PushError(f"{error}; version {version} goes on without this program, and {later}") from None
    log = folder / f"{ref.partition('/')[2]}.log"
    if state.status.name != "COMPLETE":
        tail = "\n".join(_log_text(log).splitlines()[-LOG_LINES:])
        reason = f"{state.status.name} {state.failure_message}".strip()
        raise PushError(f"kernel {ref}: its run ended with {reason}; the end of {log}:\n{tail}")
    try:  # the client saves whatever the server sends, an error page too
        answers = submission.read(folder / "submission.json")
    except InputError as error:
        raise PushError(f"kernel {ref}: its run left no valid submission ({error}); see {log}") from None
    say(f"kernel {ref}: complete, a valid submission of {len(answers)} tasks; log and output are in {folder}")
    return folder


def _log_text(path: Path) -> str:
    """A kernel's log as text: Kaggle sends a list of {"stream_name", "time", "data"}; anything else stays as it is."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    try:
        return "".join(entry["data"] for entry in json.loads(text))
    except (ValueError, TypeError, KeyError):
        return text


def _dataset_state(client, ref: str) -> dict | None:
    """{"status", "current_version_number"}, or None where there is no such dataset: Kaggle then says 403 or 404."""
    import requests

    try:
        return json.loads(client.dataset_status(ref, format="json"))
    except requests.HTTPError as error:
        if error.response.status_code in (403, 404):
            return None
        raise
