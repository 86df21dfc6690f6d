"""Sends a staged dataset and kernel to Kaggle, waits for both, and brings the kernel's log and output back.

Through the `kaggle` package's Python API, whose replies are checked here: its command line exits with 0 when a push was
refused, leaves out files whose upload failed, and waits for ever for a server that has gone silent. Credentials come
from the places that the client itself knows. In: the folder that `build_submission.py` staged. Not here: checks of what
is staged (`kaggle_checks.py`).
"""

import contextlib
import io
import json
import multiprocessing
import multiprocessing.pool
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ttt_core
from ttt_core.arc import submission
from ttt_core.errors import InputError, PushError
from ttt_core.run import environment
from ttt_core.run.curves import PICTURE
from ttt_core.run.environment import MANIFEST, fingerprint, redact
from ttt_core.run.kaggle_checks import title_faults

OUTPUTS = r"^(submission\.json|run\.json|tasks\.png|report\.html|worker[\w-]*\.log)$"  # of the kernel; its records stay on Kaggle
STRAY_OF_MODELS = shutil.ignore_patterns("checkpoint*", ".*", PICTURE)  # what a training goes on from, and its picture
WORTH_RETRYING = (429, 500, 502, 503, 504)  # for a question; a request that changes something is repeated on 429 alone
LEAST_KAGGLE = (2, 2)  # version of the package whose calls these are
CLIENT_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError)  # a full disk, what it makes of an odd reply
ENDED = {"COMPLETE", "ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"}
LOG_LINES = 15
REMEDIES = {
    401: "Kaggle does not take these credentials; make a new token at kaggle.com/settings",
    403: "this account may not do that; check the owner, and that it has accepted the competition's rules",
    404: "Kaggle does not know it; check owner and slug",
    429: "too many requests; wait some minutes and push again",
}


@dataclass(frozen=True)
class Patience:
    """Seconds at most: for one reply, all uploads of a dataset, a dataset to be ready, a kernel to end.

    poll_s: between two questions. settle_s: a kernel complete so soon after a push may be the version before. tries: of
    one request.
    """

    reply_s: float = 120.0
    upload_s: float = 7200.0
    dataset_s: float = 1800.0
    kernel_s: float = 14400.0
    poll_s: float = 5.0
    settle_s: float = 60.0
    tries: int = 5


class Unreached(PushError):
    """Kaggle did not answer, or did not get ready, in time; what it was told to do may go on."""


def connect(patience: Patience = Patience()):
    """The client, logged in with what it finds; PushError where it finds nothing or Kaggle does not take it."""
    if (version := environment.version("kaggle")) != "absent" and environment.release(version) < LEAST_KAGGLE:
        raise PushError(f"package kaggle: {version} is too old; pip install --upgrade 'kaggle>=2.2'")

    def log_in():
        hidden = io.StringIO()  # the client prints pages of advice
        try:
            with contextlib.redirect_stdout(hidden):
                from kaggle.api.kaggle_api_extended import KaggleApi  # logs in already

                client = KaggleApi()
                client.authenticate()
        except SystemExit:
            remedy = "run `kaggle auth login`, or save a token from kaggle.com/settings as ~/.kaggle/access_token"
            raise PushError(f"Kaggle credentials: none that Kaggle takes were found; {remedy}") from None
        return client

    try:
        return ask("log in", patience.reply_s, log_in, patience=patience)
    except ImportError:
        raise PushError("package kaggle: is not installed; pip install kaggle six") from None


def user_name(client) -> str:
    """Whose credentials the client has found."""
    return client.get_config_value(client.CONFIG_NAME_USER) or ""


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
    with _complete_uploads(client):
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

    state = _wait(f"dataset {ref} to be ready", is_ready, patience.dataset_s, patience, _dataset_state, client, ref)
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
        state = _wait(f"kernel {ref} to end", has_ended, patience.kernel_s, patience, client.kernels_status, ref)
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


def ask(what: str, limit_s: float, call: Callable, *args, patience: Patience, again: tuple = (429,), **options):
    """call(*args, **options) within `limit_s`; repeated when out of reach or on a status of `again`.

    Unreached where that lasts, PushError where Kaggle, or the client, refuses.
    """
    import requests

    give_up = time.monotonic() + limit_s
    for attempt in range(1, patience.tries + 1):
        pool = multiprocessing.pool.ThreadPool(1)  # a daemon, so that a call that hangs does not keep the program
        try:
            return pool.apply_async(call, args, options).get(max(0.1, give_up - time.monotonic()))
        except multiprocessing.TimeoutError:
            raise Unreached(f"{what}: no answer from Kaggle within {limit_s:g} s; try again later") from None
        except requests.HTTPError as error:
            status = error.response.status_code
            remedy = REMEDIES.get(status, "Kaggle fails; try again later" if status >= 500 else "see the message")
            why, worth = f"status {status} ({_said(error)}); {remedy}", status in again
            pause_s = _retry_after(error.response)
        except requests.RequestException as error:
            why, worth, pause_s = f"Kaggle is out of reach ({type(error).__name__}); check the network", True, None
        except CLIENT_ERRORS as error:
            raise PushError(f"{what}: {redact(str(error), os.environ)} ({type(error).__name__})") from None
        finally:
            pool.close()
        pause_s = patience.poll_s * 2 ** (attempt - 1) if pause_s is None else pause_s
        if not worth or attempt == patience.tries or time.monotonic() + pause_s > give_up:
            raise (Unreached if worth else PushError)(f"{what}: {why}")
        time.sleep(pause_s)


def _wait(what: str, is_done: Callable, limit_s: float, patience: Patience, call: Callable, *args):
    """Ask until `is_done` of the reply, however long Kaggle is out of reach meanwhile; Unreached after `limit_s`."""
    give_up, trouble = time.monotonic() + limit_s, ""
    while True:
        try:
            reply, trouble = ask(what, patience.reply_s, call, *args, patience=patience, again=WORTH_RETRYING), ""
            if is_done(reply):
                return reply
        except Unreached as error:
            trouble = f"; {error}"
        if time.monotonic() + patience.poll_s > give_up:
            raise Unreached(f"{what}: not within {limit_s:g} s; look at its page on Kaggle{trouble}")
        time.sleep(patience.poll_s)


def _dataset_state(client, ref: str) -> dict | None:
    """{"status", "current_version_number"}, or None where there is no such dataset: Kaggle then says 403 or 404."""
    import requests

    try:
        return json.loads(client.dataset_status(ref, format="json"))
    except requests.HTTPError as error:
        if error.response.status_code in (403, 404):
            return None
        raise


@contextlib.contextmanager
def _complete_uploads(client) -> Iterator[None]:
    """Within, a failed upload of a file is an error: the client would create the dataset without it."""
    upload_files = client.upload_files

    def all_or_none(request, resources, folder, *args, **options):
        upload_files(request, resources, folder, *args, **options)
        wanted = [name for name in os.listdir(folder) if name != client.DATASET_METADATA_FILE]
        if len(request.files) != len(wanted):
            raise ValueError(
                f"{len(request.files)} of {len(wanted)} uploads succeeded; nothing was changed, push again"
            )

    client.upload_files = all_or_none
    try:
        yield
    finally:
        client.upload_files = upload_files


def _said(error) -> str:
    """What the server said, in one line, without secrets."""
    try:
        said = error.response.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = error.response.reason or "no message"
    return redact(" ".join(str(said).split())[:300], os.environ)


def _retry_after(response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None
