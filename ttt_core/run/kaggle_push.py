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
from ttt_core.run.curves import PICTURE
from ttt_core.run.environment import MANIFEST, fingerprint, redact
from ttt_core.run.kaggle_checks import title_faults

OUTPUTS = r"^(submission\.json|run\.json|tasks\.png|report\.html|worker[\w-]*\.log)$"  # of the kernel; its records stay on Kaggle
STRAY_OF_MODELS = shutil.ignore_patterns("checkpoint*", ".*", PICTURE)  # what a training goes on from, and its picture
WORTH_RETRYING = (429, 500, 502, 503, 504)  # for a question; a request that changes something is repeated on 429 alone
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


def connect(patience: Patience = Patience()):
    """The client, logged in with what it finds; PushError where it finds nothing or Kaggle does not take it."""

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
    if (owner := kernel.partition("/")[0]) != user_name(client):
        raise PushError(
            f"owner {owner}: the credentials are those of {user_name(client)}; give --owner {user_name(client)}"
        )
    notes = f"ttt_core {ttt_core.__version__}, {fingerprint(out / 'dataset' / MANIFEST)[:12]}"
    push_dataset(client, out / "dataset", dataset, notes, patience, say)
    say(push_kernel(client, out / "kernel", kernel, patience))
    return fetch(client, kernel, out / "output", patience, say)


def upload_model(model: Path, ref: str, patience: Patience = Patience()) -> str:
    """The model directory, without its checkpoints, as the Kaggle dataset `ref` (OWNER/SLUG); returns its address."""
    owner, _, slug = ref.partition("/")
    metadata = {"id": ref, "title": slug.replace("-", " "), "licenses": [{"name": "apache-2.0"}]}
    if faults := title_faults("dataset ", metadata, least=6):
        raise InputError("; ".join(faults))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / slug
        shutil.copytree(model, folder, ignore=STRAY_OF_MODELS)
        (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
        push_dataset(connect(patience), folder, ref, f"model {fingerprint(model / 'config.json')[:12]}", patience)
    return f"https://www.kaggle.com/datasets/{owner}/{slug}"


def push_dataset(
    client, folder: Path, ref: str, notes: str, patience: Patience, say: Callable[[str], None] = print
) -> None:
    """Create the dataset, or a version of it where it exists, and wait until kernels can mount it."""
    before = ask(
        f"dataset {ref}", patience.reply_s, _dataset_state, client, ref, patience=patience, again=WORTH_RETRYING
    )
    with _complete_uploads(client):
        if before is None:
            call, options = client.dataset_create_new, {}
        else:
            call = client.dataset_create_version
            options = {"version_notes": notes}
        say(f"dataset {ref}: {'uploading a new version' if before else 'uploading for the first time'}")
        upload = f"upload of dataset {ref}"
        reply = ask(
            upload, patience.upload_s, call, str(folder), quiet=True, dir_mode="zip", **options, patience=patience
        )
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


def push_kernel(client, folder: Path, ref: str, patience: Patience) -> str:
    """Push the kernel, which starts its commit run; returns a line with version and address."""
    reply = ask(f"push of kernel {ref}", patience.reply_s, client.kernels_push, str(folder), patience=patience)
    if reply.error:
        raise PushError(f"kernel {ref}: Kaggle refused it: {reply.error}")
    for field in ("dataset_sources", "competition_sources", "kernel_sources", "model_sources"):
        if invalid := getattr(reply, f"invalid_{field}"):
            remedy = "it was pushed without; check the name, and that this account may use it"
            raise PushError(f"kernel {ref}: {field} {', '.join(invalid)}: unknown to Kaggle; {remedy}")
    if not reply.version_number:
        raise PushError(f"kernel {ref}: Kaggle answered without a version number; look at kaggle.com/code/{ref}")
    return f"kernel {ref}: version {reply.version_number} runs, {reply.url}"


def fetch(client, ref: str, folder: Path, patience: Patience, say: Callable[[str], None] = print) -> Path:
    """Wait for the kernel's run, and bring its log and output; PushError unless it ended well, with a submission."""
    pushed, was_seen_running = time.monotonic(), False

    def has_ended(state) -> bool:
        nonlocal was_seen_running
        was_seen_running |= state.status.name not in ENDED
        settled = was_seen_running or time.monotonic() - pushed >= patience.settle_s
        return state.status.name in ENDED and settled

    state = _wait(f"kernel {ref} to end", has_ended, patience.kernel_s, patience, client.kernels_status, ref)
    shutil.rmtree(folder, ignore_errors=True)
    output = f"output of kernel {ref}"
    options = {"file_pattern": OUTPUTS, "force": True, "page_size": 100}
    ask(
        output,
        patience.reply_s,
        client.kernels_output,
        ref,
        str(folder),
        patience=patience,
        again=WORTH_RETRYING,
        **options,
    )
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
    """call(*args, **options) within `limit_s`; repeated when out of reach or on a status of `again`."""
    import requests

    give_up = time.monotonic() + limit_s
    for attempt in range(1, patience.tries + 1):
        pool = multiprocessing.pool.ThreadPool(1)  # a daemon, so that a call that hangs does not keep the program
        try:
            return pool.apply_async(call, args, options).get(max(0.1, give_up - time.monotonic()))
        except multiprocessing.TimeoutError:
            raise PushError(f"{what}: no answer from Kaggle within {limit_s:g} s; try again later") from None
        except requests.HTTPError as error:
            status = error.response.status_code
            remedy = REMEDIES.get(status, "Kaggle fails; try again later" if status >= 500 else "see the message")
            why, worth = f"status {status} ({_said(error)}); {remedy}", status in again
            pause_s = _retry_after(error.response)
        except requests.RequestException as error:
            why, worth, pause_s = f"Kaggle is out of reach ({type(error).__name__}); check the network", True, None
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # what the client makes of an odd reply
            raise PushError(f"{what}: {redact(str(error), os.environ)} ({type(error).__name__})") from None
        finally:
            pool.close()
        pause_s = patience.poll_s * 2 ** (attempt - 1) if pause_s is None else pause_s
        if not worth or attempt == patience.tries or time.monotonic() + pause_s > give_up:
            raise PushError(f"{what}: {why}")
        time.sleep(pause_s)


def _wait(what: str, is_done: Callable, limit_s: float, patience: Patience, call: Callable, *args):
    """Ask until `is_done` of the reply; PushError after `limit_s`."""
    give_up = time.monotonic() + limit_s
    while True:
        reply = ask(what, patience.reply_s, call, *args, patience=patience, again=WORTH_RETRYING)
        if is_done(reply):
            return reply
        if time.monotonic() + patience.poll_s > give_up:
            raise PushError(f"{what}: not within {limit_s:g} s; look at its page on Kaggle")
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
