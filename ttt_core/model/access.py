"""Where a model comes from: a local directory, or a Hugging Face id that is downloaded once, safetensors only.

In: what the user wrote, and the environment. Out: a directory for `load_model`. A token is given to huggingface_hub and
to nothing else. Nothing here imports torch; what is in the directory is checked by `load.check_directory`.
"""

import contextlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ttt_core.errors import ModelError

TOKENS = ("HF_TOKEN", "HUGGINGFACE_TOKEN")  # in this order: the environment, then .env, then Colab's secrets
FILES = ["*.safetensors", "*.json"]  # weights, index, config, tokenizer; never code, never pickles
BUNDLED = ("kaggle_dataset/model", "model")  # beside `ttt_core`, in a clone and in the Kaggle dataset
_UNREACHABLE = (
    "no such folder here, not in the hub's cache, and the hub is out of reach ({}); "
    "give a folder, or download it with a network first"
)
PUBLIC = {  # ungated models of a like size, billions of parameters
    "openai-community/gpt2": 0.12,
    "HuggingFaceTB/SmolLM2-135M": 0.13,
    "Qwen/Qwen3-0.6B": 0.6,
    "Qwen/Qwen3-1.7B": 1.7,
    "Qwen/Qwen3-4B": 4.0,
}


@dataclass(frozen=True)
class Access:
    """path: a local directory. note: what a reader of the receipt should know of how it was come by; mostly empty."""

    path: Path
    note: str = ""


def resolve(model: str, *, fallback: bool = False, environ: Mapping[str, str] = os.environ) -> Access:
    """The directory of `model`; with `fallback` the bundled base where a Hugging Face id cannot be had.

    ModelError names what is missing: the directory, the repository, the right to it, or the network.
    """
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise ModelError(
                f"model {model!r}: has no config.json; give the folder of a model, such as kaggle_dataset/model"
            )
        return Access(Path(model))
    if not is_id(model):
        raise ModelError(
            f"model {model}: is not a folder; give one, such as kaggle_dataset/model, or OWNER/NAME of a hub"
        )
    try:
        return Access(download(model, find_token(environ)))
    except ModelError as error:
        if not fallback or (base := bundled()) is None:
            raise
        return Access(base, f"fallback to the bundled base: {error}")


def download(model: str, token: str | None) -> Path:
    """The snapshot of a Hugging Face repository in huggingface_hub's cache; what is there is not fetched again.

    It is taken as it is where the hub is out of reach, or no longer opens the repository to this token.
    """
    from huggingface_hub import snapshot_download

    try:
        with _hub_errors(model, token):
            require_open(model, token)
            return Path(snapshot_download(model, allow_patterns=FILES, token=token or False))
    except (_OutOfReach, ModelError) as error:
        if (path := cached(model)) is not None:
            return path
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model {model}: {_UNREACHABLE.format(error)}") from None


def examine(model: str, token: str | None) -> str:
    """In a few words whether an id can be had, without a download; ModelError if not."""
    if (path := cached(model)) is not None:
        return f"in the hub's cache, {path}"
    try:
        with _hub_errors(model, token):
            require_open(model, token)
    except _OutOfReach as error:
        raise ModelError(f"model {model}: {_UNREACHABLE.format(error)}") from None
    return "open to your token" if token else "public"


def require_open(model: str, token: str | None) -> None:
    """Ask the hub: is the repository there, open, with safetensors? Raises the hub's errors, or ModelError."""
    from huggingface_hub import HfApi

    hub = HfApi(token=token or False)
    files = [sibling.rfilename for sibling in hub.model_info(model).siblings]
    hub.auth_check(model)
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelError(f"model {model}: has no safetensors weights; choose one that has, or convert it")


def cached(model: str) -> Path | None:
    """The snapshot of an id in huggingface_hub's cache, if one is there; asks nobody."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=FILES, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None


def find_token(environ: Mapping[str, str], dotenv: str | Path = ".env") -> str | None:
    """A Hugging Face token from the environment, `dotenv`, or Colab's secrets; None if there is none."""
    from dotenv import dotenv_values

    for source in (environ, dotenv_values(dotenv) if Path(dotenv).is_file() else {}):
        for name in TOKENS:
            if source.get(name):
                return source[name]
    return next(filter(None, map(colab_secret, TOKENS)), None)


def colab_secret(name: str) -> str | None:
    """A secret of the Colab notebook; None elsewhere, and where there is none or it may not be read."""
    try:
        from google.colab import userdata
    except ImportError:
        return None
    try:
        return userdata.get(name)
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError, userdata.TimeoutException):
        return None


def bundled() -> Path | None:
    """The base model beside the library, if it is there."""
    root = Path(__file__).resolve().parents[2]
    return next((root / name for name in BUNDLED if (root / name / "config.json").is_file()), None)


def is_id(model: str) -> bool:
    """Whether `model` has the form of an id on a hub, OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return model.count("/") == 1 and not model.startswith((".", "/"))


class _OutOfReach(Exception):
    """No network, told to stay offline, or a hub that cannot answer now."""


@contextlib.contextmanager
def _hub_errors(model: str, token: str | None):
    """Within, what huggingface_hub raises becomes a ModelError with the remedy, or _OutOfReach."""
    from huggingface_hub import errors

    try:  # what huggingface_hub speaks HTTP with, in its newer and older releases
        from httpx2 import TransportError
    except ImportError:
        from httpx import TransportError

    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"model {model}: is gated; {_told(token)}; ask at {_page(model)}, or {others(model)}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"model {model}: no such repository, or a private one; {_told(token)}; see {_page(model)}"
        ) from None
    except (errors.OfflineModeIsEnabled, TransportError, errors.LocalEntryNotFoundError) as error:
        raise _OutOfReach(type(error).__name__) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 503
        if status == 429 or status >= 500:
            raise _OutOfReach(f"status {status}") from None
        remedy = "check the token" if status == 401 else "try again later"
        raise ModelError(f"model {model}: the hub answered with status {status}; {_told(token)}; {remedy}") from None


def others(model: str) -> str:
    """The public models, the ones nearest in size to what the name of `model` says first."""
    said = re.search(r"(\d+(?:\.\d+)?)([bm])\b", model.lower())
    size = float(said[1]) / (1 if said[2] == "b" else 1000) if said else 0.6
    near = sorted(PUBLIC, key=lambda name: abs(math.log(PUBLIC[name] / size)))[:3]
    return "take a public one of like size: " + ", ".join(f"{name} ({PUBLIC[name]:g} B)" for name in near)


def _told(token: str | None) -> str:
    if token:
        return "the token that was found does not open it"
    return f"no token was found in {', '.join(TOKENS)}, .env or Colab's secrets"


def _page(model: str) -> str:
    return f"https://huggingface.co/{model}"
