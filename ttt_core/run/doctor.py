"""Whether a run would work here: platform, versions, devices, memory, disk, inputs, model, and a self-test.

Each check is a name, what was found, and a fault with its remedy, empty where all is well. torch is asked in a child
process, so that a broken CUDA installation is a line in the table and not a crash.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ttt_core import config
from ttt_core.arc.tasks import read_challenges
from ttt_core.errors import TTTError
from ttt_core.model import access, host
from ttt_core.run import environment
from ttt_core.run.run import run
from ttt_core.run.suited import suited

LEAST = {"torch": (2, 10), "transformers": (5, 0), "numpy": (2, 0), "safetensors": (0, 5)}
BELOW = {"transformers": (6, 0)}
LEAST_DISK_GB = 1.0
LEAST_MEMORY_GIB = 2.0
SELF_TEST_S = 300.0  # at most, with a large model or on a busy machine; with the bundled one it is over in less than 20
ASK_S = 120.0  # for torch, at most
ASK_TORCH = """
import json, sys, torch
from pathlib import Path
from ttt_core.errors import TTTError
from ttt_core.model.load import compute_dtype, check_directory
found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
gpus = [f"{p.name} {p.total_memory / 2**30:.0f} GiB ({p.major}.{p.minor})" for p in found]
device = torch.device("cuda" if gpus else "cpu")
told = {"gpus": gpus, "threads": torch.get_num_threads(), "dtype": str(compute_dtype(device)).removeprefix("torch.")}
try:
    told["model"] = check_directory(Path(sys.argv[1])).get("model_type")
except TTTError as error:
    told["fault"] = str(error)
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Check:
    """name: of what was looked at; found: what is there; fault: why a run would fail and the remedy, or ""."""

    name: str
    found: str
    fault: str = ""


def examine(
    model: str | Path, challenges: str | Path | None = None, inputs: str = "/kaggle/input", preset: str = "grid"
) -> list[Check]:
    """All checks, the self-test with the settings of `preset` last; it is left out where an earlier check failed."""
    config.preset(preset)  # for an error before the checks, which take their time
    where = environment.platform_name(os.environ)
    rehearsal = " (a rehearsal, not scored)" if environment.is_rehearsal(os.environ) else ""
    checks = [Check("platform", where + rehearsal), _python(), *map(_package, LEAST), _torchao()]
    if not Path(model).is_dir() and access.is_id(str(model)):
        found, model = _access(str(model))
        checks.append(found)
    checks += [*_asked(model), _memory(), _disk(), *_challenges(challenges, inputs, where)]
    if where == "kaggle" and (faults := environment.gpus()[1]):
        checks.append(Check("GPU", "unusable", faults[0]))
    if any(check.fault for check in checks):
        return checks
    if model is None:  # it has yet to be downloaded
        return [*checks, _self_test(access.bundled(), "grid", "self-test (bundled model)")]
    return [*checks, _self_test(model, preset)]


def table(checks: list[Check]) -> str:
    """For people: one line a check, faults below."""
    wide = max(len(check.name) for check in checks)
    lines = [f"{'FAIL' if check.fault else 'ok  '}  {check.name:{wide}}  {check.found}" for check in checks]
    return "\n".join(lines + [f"{check.name}: {check.fault}" for check in checks if check.fault])


def _python() -> Check:
    fault = "" if sys.version_info >= (3, 11) else "give Python 3.11 or newer"
    return Check("python", platform.python_version(), fault)


def _package(name: str) -> Check:
    version = environment.version(name)
    if version == "absent":
        return Check(name, version, f"not installed; pip install -r requirements.txt (at least {_dotted(LEAST[name])})")
    number = environment.release(version)
    if number < LEAST[name] or number >= BELOW.get(name, (999,)):
        bound = f">={_dotted(LEAST[name])}" + (f",<{_dotted(BELOW[name])}" if name in BELOW else "")
        return Check(name, version, f"does not fit; pip install '{name}{bound}'")
    return Check(name, version)


def _torchao() -> Check:
    """On Kaggle and Colab 0.10: with it PEFT's LoRA raises ImportError; ours uses neither."""
    version = environment.version("torchao")
    is_old = version != "absent" and environment.release(version) < (0, 16)
    return Check("torchao", f"{version}; PEFT's LoRA fails with it, this one does not use it" if is_old else version)


def _access(model: str) -> tuple[Check, Path | None]:
    """Whether a model's id can be had, and its directory where it is in the cache; nothing is downloaded."""
    try:
        found = access.examine(model, access.find_token(os.environ))
    except TTTError as error:
        return Check("model access", model, str(error)), None
    return Check("model access", f"{model}: {found}"), access.cached(model)


def _asked(model) -> list[Check]:
    """Device and model, as torch sees them. model: None where it has yet to be downloaded."""
    command = [sys.executable, "-c", ASK_TORCH, str(model)]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_S, env=environment.worker_environment(os.environ)
        )
        told = json.loads(ran.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [
            Check("device", "unknown", f"torch says nothing within {ASK_S:g} s; look at the GPU's driver, nvidia-smi")
        ]
    except (ValueError, IndexError):
        said = environment.redact((ran.stderr.strip().splitlines() or ["nothing"])[-1], os.environ)
        return [Check("device", "unknown", f"torch cannot be asked, it says {said!r}; install it again")]
    devices = ", ".join(told["gpus"]) or f"CPU, {told['threads']} threads"
    device = Check("device", f"{devices}, {told['dtype']}")
    if model is None:
        return [device]
    return [device, Check("model", f"{model} ({told.get('model', 'unusable')})", told.get("fault", ""))]


def _memory() -> Check:
    free = host.free_bytes() / 2**30
    fault = "" if free >= LEAST_MEMORY_GIB else f"a run wants {LEAST_MEMORY_GIB:g} GiB; end other programs"
    return Check("memory", f"{free:.1f} GiB free", fault)


def _disk() -> Check:
    free = shutil.disk_usage(".").free / 1e9
    fault = "" if free >= LEAST_DISK_GB else f"a run wants {LEAST_DISK_GB:g} GB; make room or work elsewhere"
    return Check("disk", f"{free:.1f} GB free here", fault)


def _challenges(path, inputs: str, where: str) -> list[Check]:
    """The challenge file that is given, or on Kaggle the mounted one; nothing elsewhere."""
    if path is None and where != "kaggle":
        return []
    try:
        path = path or environment.find_input(inputs, "arc-agi_test_challenges.json")
        challenges = read_challenges(path)
    except TTTError as error:
        return [Check("challenges", str(path or inputs), str(error))]
    fault = "" if challenges.tasks else f"no usable task: {challenges.faults[0]}"
    told = f", {len(challenges.bad)} unusable" if challenges.bad else ""
    return [Check("challenges", f"{path}: {len(challenges.tasks)} tasks{told}", fault)]


def _self_test(model, preset: str, name: str = "self-test") -> Check:
    """Solve one tiny task with `model`, from challenge file to submission, in a folder that is thrown away.

    With the settings of `preset` but few steps and views.
    """
    pairs = [{"input": [[k, 0], [0, k]], "output": [[0, k], [k, 0]]} for k in (1, 2, 3)]
    task = {"train": pairs, "test": [{"input": [[4, 0], [0, 4]]}]}
    few = ["adapt.steps=3", "adapt.batch_tokens=128", "decode.views=2", "rescore.views=2", "second.passes=1"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "challenges.json")
        path.write_text(json.dumps({"self_test": task}))
        try:
            settings, _ = suited(preset, few, Path(model))
            done = run(path, model, Path(folder, "run"), config=settings, budget_s=SELF_TEST_S, progress=False)
        except TTTError as error:
            return Check(name, "failed", str(error))
    reason = done.outcomes["self_test"]["reason"]
    return Check(name, f"{done.ok} of 1 task in {done.seconds:.1f} s", "" if done.ok else reason or "no record")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
