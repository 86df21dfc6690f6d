"""What a run stands on: package versions, fingerprints of its inputs, and an environment without secrets.

In: paths and environment mappings. Out: plain strings and dicts. Nothing here imports the packages it names (their
versions are read from their metadata), so the parent of a run stays free of torch.
"""

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import ttt_core
from ttt_core.errors import InputError

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "tqdm")

_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|CREDENTIALS|PASSWORD|PASSWD)$", re.IGNORECASE)
_SECRET_SHAPE = re.compile(r"\b(hf|ghp|github_pat|glpat|sk)[_-][A-Za-z0-9_-]{16,}")
_MIN_SECRET = 6  # shorter values are words that a message may hold for other reasons


def versions() -> dict[str, str]:
    """Versions of Python, this library and the packages that determine results; "absent" where not installed."""
    found = {"python": platform.python_version(), "ttt_core": ttt_core.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def fingerprint(path: str | Path) -> str:
    """sha256 of a file, or of the names and sha256 of all files below a folder; InputError if it cannot be read."""
    path = Path(path)
    try:
        if not path.is_dir():
            return _sha256(path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        lines = [f"{file.relative_to(path).as_posix()} {_sha256(file)}\n" for file in files]
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read ({error.strerror}); check the path") from None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a worker: no secrets, offline, and `ttt_core` importable where it is not installed."""
    clean = {name: value for name, value in environ.items() if not _SECRET_NAME.search(name)}
    clean.pop("KAGGLE_USERNAME", None)
    library = str(Path(ttt_core.__file__).resolve().parents[1])
    others = [part for part in clean.get("PYTHONPATH", "").split(":") if part]
    clean["PYTHONPATH"] = ":".join([library, *others])
    return clean | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def redact(text: str, environ: Mapping[str, str]) -> str:
    """`text` with every secret value of `environ`, and whatever has the shape of a token, replaced by ***."""
    secrets = [v for name, v in environ.items() if _SECRET_NAME.search(name) and len(v) >= _MIN_SECRET]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRET_SHAPE.sub("***", text)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)  # .cache and .gitattributes of a hub download


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
