"""Where a model comes from: a local directory, or a Hugging Face id that is downloaded once, safetensors only.

In: what the user wrote, and the environment. Out: a directory for `load_model`. A token is given to huggingface_hub and
to nothing else. Nothing here imports torch; what is in the directory is checked by `load.check_directory`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ttt_core.errors import ModelError

TOKENS = ("HF_TOKEN", "HUGGINGFACE_TOKEN")  # in this order: the environment, then .env, then Colab's secrets
FILES = ["*.safetensors", "*.json"]  # weights, index, config, tokenizer; never code, never pickles
BUNDLED = ("kaggle_dataset/model", "model")  # beside `ttt_core`, in a clone and in the Kaggle dataset
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
        return Access(Path(model))
    if not _is_id(model):
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
    """The snapshot of a Hugging Face repository in huggingface_hub's cache; what is there already is not fetched again."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:  # what huggingface_hub speaks HTTP with, in its newer and older releases
        from httpx2 import TransportError
    except ImportError:
        from httpx import TransportError

    try:
        files = [sibling.rfilename for sibling in HfApi(token=token or False).model_info(model).siblings]
        HfApi(token=token or False).auth_check(model)
        if not any(name.endswith(".safetensors") for name in files):
            raise ModelError(f"model {model}: has no safetensors weights; choose one that has, or convert it")
        return Path(snapshot_download(model, allow_patterns=FILES, token=token or False))
    except errors.GatedRepoError:
        raise ModelError(f"model {model}: is gated; {_told(token)}; ask at {_page(model)}, or {_others()}") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"model {model}: no such repository, or a private one; {_told(token)}; see {_page(model)}"
        ) from None
    except (errors.OfflineModeIsEnabled, TransportError, errors.LocalEntryNotFoundError) as error:
        try:
            return Path(snapshot_download(model, allow_patterns=FILES, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            reason = type(error).__name__
            where = f"no such folder here, not in the hub's cache, and the hub is out of reach ({reason})"
            raise ModelError(f"model {model}: {where}; give a folder, or download it with a network first") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        remedy = "check the token" if status == 401 else "try again later"
        raise ModelError(f"model {model}: the hub answered with status {status}; {_told(token)}; {remedy}") from None


def find_token(environ: Mapping[str, str], dotenv: str | Path = ".env") -> str | None:
    """A Hugging Face token from the environment, `dotenv`, or Colab's secrets; None if there is none."""
    from dotenv import dotenv_values

    for source in (environ, dotenv_values(dotenv) if Path(dotenv).is_file() else {}):
        for name in TOKENS:
            if source.get(name):
                return source[name]
    try:
        from google.colab import userdata
    except ImportError:
        return None
    try:
        return userdata.get("HF_TOKEN")
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return None


def bundled() -> Path | None:
    """The base model beside the library, if it is there."""
    root = Path(__file__).resolve().parents[2]
    return next((root / name for name in BUNDLED if (root / name / "config.json").is_file()), None)


def _is_id(model: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return model.count("/") == 1 and not model.startswith((".", "/"))


def _told(token: str | None) -> str:
    return (
        "the token that was found does not open it" if token else f"no token was found in {', '.join(TOKENS)} or .env"
    )


def _page(model: str) -> str:
    return f"https://huggingface.co/{model}"


def _others() -> str:
    return "take a public one: " + ", ".join(f"{name} ({size:g} B)" for name, size in PUBLIC.items())
