"""Where a model comes from: a local directory, or a Hugging Face id that is downloaded once, safetensors only.

In: what the user wrote, and the environment. Out: a directory for `load_model`. A token is given to huggingface_hub and
to nothing else. Nothing here imports torch; what is in the directory is checked by `load.check_directory`.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ttt_core.errors import ModelError

TOKENS = ("HF_TOKEN", "HUGGINGFACE_TOKEN")  # in this order: the environment, then .env, then Colab's secrets
# Weights, index, config, tokenizer; never code, never pickles, nor a second copy of the weights or one of a training's checkpoints.
FILES = {"allow_patterns": ["*.safetensors", "*.json"], "ignore_patterns": ["*/*", "consolidated*"]}
WHOLE = "model.safetensors"  # all tensors, where they are in one file
INDEX = "model.safetensors.index.json"  # which shard holds which tensor
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # suffixes of files that can run code
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

    fault = ModelError(f"model {model}: the download broke off; begin it again, it goes on")
    try:
        with _hub_errors(model, token):
            require_open(model, token)
            snapshot_download(model, token=token or False, **FILES)
    except ModelError as error:
        fault = error
    if (path := cached(model)) is None:  # older releases take what a download left that broke off
        raise fault from None
    return path


def examine(model: str, token: str | None) -> str:
    """In a few words whether an id can be had, without a download; ModelError if not."""
    if (path := cached(model)) is not None:
        return f"in the hub's cache, {path}"
    with _hub_errors(model, token):
        require_open(model, token)
    return "open to your token" if token else "public"


def require_open(model: str, token: str | None) -> None:
    """Ask the hub: is the repository there, open, a model in safetensors? Raises the hub's errors, or ModelError."""
    from huggingface_hub import HfApi

    hub = HfApi(token=token or False)
    files = {sibling.rfilename for sibling in hub.model_info(model).siblings}
    hub.auth_check(model)
    if "adapter_config.json" in files:
        raise ModelError(
            f"model {model}: is a PEFT adapter, no model; give its base model, or a folder that holds both merged"
        )
    if "config.json" not in files or not files & {WHOLE, INDEX}:
        raise ModelError(
            f"model {model}: has no safetensors weights beside a config.json at its top, as {WHOLE} or {INDEX}; "
            "choose one that has, or give the folder of a converted one"
        )


def cached(model: str) -> Path | None:
    """The snapshot of an id in huggingface_hub's cache, if it is there with all its weights; asks nobody."""
    from huggingface_hub import errors, snapshot_download

    try:
        path = Path(snapshot_download(model, local_files_only=True, **FILES))
    except (errors.LocalEntryNotFoundError, OSError):
        return None
    weights, named = {file.name for file in path.glob("*.safetensors") if file.is_file()}, shards(path)
    is_whole = named <= weights if named else any("-of-" not in name for name in weights)  # shards want an index
    return path if is_whole and (path / "config.json").is_file() else None


def shards(path: Path) -> set[str]:
    """The files that the index of the model in folder `path` names, none without an index; ModelError if it is damaged."""
    index = path / INDEX
    if not index.exists():
        return set()
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        listed = None
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ModelError(f"model {path}: {INDEX} cannot be used; copy it again")
    return set(listed.values())


def find_token(environ: Mapping[str, str], dotenv: str | Path = ".env") -> str | None:
    """A Hugging Face token from the environment, `dotenv`, or Colab's secrets; None if there is none.

    ModelError for one that no header can hold, and for a file that cannot be read.
    """
    from dotenv import dotenv_values

    try:
        noted = dotenv_values(dotenv) if Path(dotenv).is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{dotenv}: cannot be read ({type(error).__name__}); save it as UTF-8, or move it") from None
    for get in (environ.get, noted.get, colab_secret):
        for name in TOKENS:
            if token := (get(name) or "").strip():
                if not re.fullmatch("[!-~]+", token):
                    raise ModelError(f"{name}: holds a space or another character that no token has; copy it again")
                return token
    return None


def colab_secret(name: str) -> str | None:
    """A secret of the Colab notebook; None elsewhere, and where there is none or it may not be read.

    Elsewhere is also a program beside the notebook (`!python -m ttt_core`): Colab answers a notebook's kernel alone.
    """
    try:
        from google.colab import userdata
        from IPython import get_ipython
    except ImportError:
        return None
    if getattr(get_ipython(), "kernel", None) is None:
        return None
    try:
        return userdata.get(name)
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError, userdata.TimeoutException):
        return None


def bundled(library: Path | None = None) -> Path | None:
    """The base model in the folder that holds `ttt_core`, `library` or this one's, if it is there."""
    root = library or Path(__file__).resolve().parents[2]
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


@contextlib.contextmanager
def _hub_errors(model: str, token: str | None):
    """Within, what huggingface_hub raises becomes a ModelError with the remedy."""
    from huggingface_hub import errors

    try:  # what huggingface_hub speaks HTTP with, in its newer and older releases
        from httpx2 import TransportError
    except ImportError:
        from httpx import TransportError

    why = ""
    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"model {model}: is gated; {_told(token)}; ask at {_page(model)}, or {others(model)}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"model {model}: no such folder here, and no such repository, or a private one; {_told(token)}; "
            f"see {_page(model)}"
        ) from None
    except (errors.OfflineModeIsEnabled, TransportError, errors.LocalEntryNotFoundError) as error:
        why = type(error).__name__
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 503
        if status != 429 and status < 500:
            told, remedy = _told(token), "check the token" if status == 401 else "try again later"
            raise ModelError(f"model {model}: the hub answered with status {status}; {told}; {remedy}") from None
        why = f"status {status}"
    except OSError as error:
        told = f"{error.strerror or type(error).__name__}: {error.filename or 'no file'}"
        remedy = "make room in the hub's cache, or set HF_HOME to a folder that can be written"
        raise ModelError(f"model {model}: cannot be downloaded ({told}); {remedy}") from None
    except ValueError as error:  # a page in place of an answer, as of a network that wants a login
        why = type(error).__name__
    if why:
        raise ModelError(f"model {model}: {_UNREACHABLE.format(why)}")


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
