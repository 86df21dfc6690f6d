"""Kaggle's own client, asked with patience: time limits, repeats, and its replies' faults as one sentence each.

Its command line exits with 0 when a push was refused, leaves out files whose upload failed, and waits for ever for a server
that has gone silent. Credentials come from the places that the client itself knows. Not here: what is asked (`kaggle_push.py`).
"""

import contextlib
import io
import multiprocessing
import multiprocessing.pool
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ttt_core.errors import PushError
from ttt_core.run import environment

WORTH_RETRYING = (
    429,
    500,
    502,
    503,
    504,
)  # for a question; of statuses a request that changes something is repeated on 429 alone
LEAST_KAGGLE = (2, 2)  # version of the package whose calls these are
CLIENT_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError)  # a full disk, what it makes of an odd reply
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
            raise PushError(f"{what}: {environment.redact(str(error), os.environ)} ({type(error).__name__})") from None
        finally:
            pool.close()
        pause_s = patience.poll_s * 2 ** (attempt - 1) if pause_s is None else pause_s
        if not worth or attempt == patience.tries or time.monotonic() + pause_s > give_up:
            raise (Unreached if worth else PushError)(f"{what}: {why}")
        time.sleep(pause_s)


def wait(what: str, is_done: Callable, limit_s: float, patience: Patience, call: Callable, *args):
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


@contextlib.contextmanager
def complete_uploads(client) -> Iterator[None]:
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
    return environment.redact(" ".join(str(said).split())[:300], os.environ)


def _retry_after(response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None
