"""What a run stands on: versions, fingerprints, the platform and its mounted inputs, an environment without secrets.

In: paths and environment mappings. Out: plain strings and dicts. Nothing here imports the packages it names (their
versions are read from their metadata), so the parent of a run stays free of torch.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import ttt_core
from ttt_core.arc.tasks import nearest
from ttt_core.errors import InputError
from ttt_core.model.access import bundled

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "tqdm")

MANIFEST = "MANIFEST.json"  # beside `ttt_core` in the Kaggle dataset: {relative path: sha256} of every file
DETERMINING = {".json", ".safetensors", ".txt", ".model"}  # of a model's files; the last two are tokenizers'
TASK_FILES = {".json"}  # of a folder of tasks
WHEELS, WHEEL_LIST = "wheels", "wanted.txt"  # beside `ttt_core`: packages that the image lacks, and their names
MOUNT_DEPTH = 7  # of /kaggle/input/models/OWNER/MODEL/FRAMEWORK/INSTANCE/VERSION, the deepest mount, and a folder in it
KINDS = {"str": {str}, "int": {int}, "float": {int, float}, "bool": {bool}}  # of notebook parameters
MAX_COUNT = 9999  # of tasks, as text may be given; ids that look like numbers are larger
LEAST_CAPABILITY = 7.0  # CUDA compute capability that the image's torch has kernels for; a P100 has 6.0

_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|CREDENTIALS|PASSWORD|PASSWD)$", re.IGNORECASE)
_SECRET_SHAPE = re.compile(
    r"\b((hf|ghp|KGAT)_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-(?=[\w-]*\d)[\w-]{16,})"
)
_MIN_SECRET = 6  # shorter values are words that a message may hold for other reasons


def versions() -> dict[str, str]:
    """Versions of Python, this library and the packages that determine results; "absent" where not installed."""
    found = {"python": platform.python_version(), "ttt_core": ttt_core.__version__}
    return found | {package: version(package) for package in PACKAGES}


def version(package: str) -> str:
    """The installed version of `package`, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def release(version: str) -> tuple[int, ...]:
    """(5, 1) of "5.1.0rc1+cpu"."""
    return tuple(int(re.match(r"\d+", part)[0]) for part in version.split(".")[:2])


def fingerprint(path: str | Path, kinds: Set[str] = DETERMINING) -> str:
    """sha256 of a file, or of the names and sha256 of a folder's files that determine results; InputError if it cannot be read.

    These are the ones of `kinds` directly in it, such as a model's: not its card, a picture or a run in a folder below.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _sha256(path)
        files = sorted(f for f in path.iterdir() if f.suffix in kinds and f.is_file() and f.name[0] != ".")
        lines = [f"{file.name} {_sha256(file)}\n" for file in files]
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


def platform_name(environ: Mapping[str, str]) -> str:
    """ "kaggle", "colab" or "local", by the variables that each sets itself; a folder /kaggle/input is no proof."""
    if "KAGGLE_KERNEL_RUN_TYPE" in environ:
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in environ else "local"


def is_rehearsal(environ: Mapping[str, str]) -> bool:
    """Whether this is Kaggle's commit run ("Save Version"), whose submission is scored only after a rerun."""
    rerun = environ.get("KAGGLE_IS_COMPETITION_RERUN", "").lower() not in ("", "0", "false")
    return platform_name(environ) == "kaggle" and not rerun


def check_parameters(cells: Sequence[str]) -> None:
    """InputError where papermill has set a parameter that the notebook does not declare, or not so. cells: IPython's `In`.

    Declared is what a cell annotates (`seed: int = 0`); set is what the cell does that papermill puts in, which begins
    with "# Parameters". papermill itself only warns, and its -p makes a number of an id such as 00576224 or 20818e16.
    """
    declared, given = {}, {}
    for source in cells:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # magics; none stand beside parameters
            continue
        declared |= {node.target.id: ast.unparse(node.annotation) for node in body if isinstance(node, ast.AnnAssign)}
        if source.startswith("# Parameters"):
            given |= {target.id: node.value for node in body if isinstance(node, ast.Assign) for target in node.targets}
    for name, node in given.items():
        if name not in declared:
            known = ", ".join(sorted(declared))
            raise InputError(
                f"notebook parameter {name}: unknown, the nearest is {nearest(name, declared)}; known: {known}"
            )
        value, kind = _value(node), declared[name]
        if not is_kind(name, value, kind):
            remedy = (
                "papermill's -p makes numbers of some ids: give it with -r" if kind == "str" else "see the first cell"
            )
            raise InputError(f"notebook parameter {name}: {value!r} is no {kind}; {remedy}")


def is_kind(name: str, value, kind: str) -> bool:
    """Whether the notebook parameter `name`, declared as `kind`, takes `value`; `tasks`, which is text, takes a count too."""
    is_count = name.endswith("tasks") and type(value) is int and 0 <= value <= MAX_COUNT
    return is_count or type(value) in KINDS.get(kind, {type(value)})


def _value(node: ast.expr):
    """Of a parameter as papermill writes it: float('inf') where the number, such as the id 13e47133, is too large for a float."""
    number = re.fullmatch(r"(?:float\(')?(-?inf|nan)(?:'\))?", ast.unparse(node))
    return float(number[1]) if number else ast.literal_eval(node)


def find_input(inputs: str | Path, name: str) -> Path:
    """The file `name` nearest to the root of `inputs`, whatever the mounts are called; InputError if none is, or several are."""
    for depth in range(MOUNT_DEPTH + 1):
        found = sorted(Path(inputs).glob("*/" * depth + name))
        if len(found) > 1:
            raise InputError(f"{' and '.join(map(str, found))}: attach only one, or set the parameter `challenges`")
        if found:
            return found[0]
    mounted = ", ".join(sorted(path.name for path in Path(inputs).glob("*"))) or "nothing"
    raise InputError(f"{name}: not found below {inputs}, which holds {mounted}; attach the data that has it")


def find_model(inputs: str | Path, library: Path | None, need: bool = False) -> Path:
    """The one model mounted below `inputs`, except bundles' own, else the one beside `library` (None: beside this one).

    InputError if there are several, if what is mounted has no safetensors, or if there is none and one is needed.
    """
    root = Path(inputs)
    mounted = [path.parent for depth in range(MOUNT_DEPTH + 1) for path in root.glob("*/" * depth + "config.json")]
    found = sorted({path.resolve() for path in mounted if not _is_in_bundle(path, root)})
    models = [path for path in found if any(path.glob("*.safetensors"))]
    if len(models) > 1:
        raise InputError(f"models {', '.join(map(str, models))}: attach only one, or set the parameter `model`")
    if found and not models:
        raise InputError(f"{found[0]}: has config.json and no *.safetensors; attach the model in safetensors")
    if need and not models:
        raise InputError(f"{root}: holds no model, but one was to be attached; attach it, or set need_model: false")
    if not models and not (base := bundled(library)):
        raise InputError(f"{root}: holds no model, and none is beside the library; set the parameter `model`")
    return models[0] if models else base


def manifest_faults(library: str | Path, build: str = "") -> list[str]:
    """One line for every file of the dataset at `library` that its manifest does not list with this content.

    build: sha256 of the manifest that was made together with the notebook; another one is a fault too.
    """
    library = Path(library)
    if not (library / MANIFEST).is_file():
        return [f"{library / MANIFEST}: missing; stage the dataset again with build_submission.py"]
    if build and _sha256(library / MANIFEST) != build:
        return [f"{library}: is of another build than this notebook; push both with build_submission.py --push"]
    remedy = "upload the dataset again"
    try:
        listed = dict(json.loads((library / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        return [f"{library / MANIFEST}: cannot be read ({error}); {remedy}"]
    return [
        f"{library / name}: {'changed' if (library / name).is_file() else 'missing'} since the build; {remedy}"
        for name, digest in listed.items()
        if not (library / name).is_file() or _sha256(library / name) != digest
    ]


def _is_in_bundle(path: Path, root: Path) -> bool:
    """Whether a folder between `root` and `path` holds the library, as this bundle's dataset does, or another's."""
    return any((above / "ttt_core").is_dir() for above in path.parents if above.is_relative_to(root))


def install_wheels(library: str | Path) -> list[str]:
    """Install the wheels that the dataset at `library` brings along, without an index; one line a fault."""
    folder = Path(library) / WHEELS
    if not folder.is_dir():
        return []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(folder)]
    ran = subprocess.run([*pip, "--requirement", str(folder / WHEEL_LIST)], capture_output=True, text=True)
    if ran.returncode:
        return [f"{folder}: pip cannot install them ({' '.join(ran.stderr.split())[-300:]}); collect them again"]
    importlib.invalidate_caches()
    return []


def nvidia_smi(query: str = "nvidia-smi") -> list[str]:
    """A line a GPU, "INDEX, NAME, COMPUTE CAPABILITY", or what its driver complains of; none where it is silent."""
    try:  # where one of several GPUs fell off, it tells of the others all the same, and ends with a code
        asked = [query, "--query-gpu=index,name,compute_cap", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def is_old(line: str) -> bool:
    """Whether a line of `nvidia_smi` is of a GPU too old for torch; some drivers tell no capability."""
    capability = line.strip().rpartition(", ")[2]
    return bool(re.fullmatch(r"\d+\.\d+", capability)) and float(capability) < LEAST_CAPABILITY


def gpus(query: str = "nvidia-smi") -> tuple[str, list[str]]:
    """The devices for a run, "" where its own are as good, and one line for every fault of this machine's GPUs.

    Where GPUs are too old for torch or tell nothing, these are the others; where all are too old, "cpu".
    """
    remedy = "choose GPU L4 x4 or T4 x2 as accelerator"
    if not (lines := nvidia_smi(query)):
        return "", [f"GPU: none found; {remedy}"]
    usable, has_old, faults = [], False, []
    for line in lines:
        told = re.fullmatch(r"(\d+), (.+), (\d+\.\d+)", line.strip())
        if not told:
            faults.append(f"GPU: {query} says {line!r}; {remedy}")
        elif is_old(line):
            has_old = True
            faults.append(f"GPU {told[2]}: compute capability {told[3]} is too old for this torch; {remedy}")
        else:
            usable.append(told[1])
    devices = f"cuda:{','.join(usable)}" if usable else "cpu" if has_old else ""
    return devices if faults else "", faults


def redact(text: str, environ: Mapping[str, str]) -> str:
    """`text` with every secret value of `environ`, and whatever has the shape of a token, replaced by ***."""
    secrets = [v for name, v in environ.items() if _SECRET_NAME.search(name) and len(v) >= _MIN_SECRET]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRET_SHAPE.sub("***", text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
