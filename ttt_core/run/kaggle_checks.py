"""What Kaggle refuses, or accepts and then fails on, about a staged dataset and kernel.

In: the folders that `build_submission.py` staged. Out: one line a fault, which begins with the field or file it is
about. Nothing here talks to Kaggle (`kaggle_push.py`); limits are those of its client and its server.
"""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ttt_core import config
from ttt_core.arc.submission import PLACEHOLDER
from ttt_core.errors import InputError
from ttt_core.model.access import PICKLES
from ttt_core.run import environment

MAX_DATASET_GB = 200
MAX_NOTEBOOK_MB = 1
MOUNTED = "/kaggle/input"
WORKING = "/kaggle/working"  # what a run leaves elsewhere, Kaggle does not score
BUDGETS_S = (1800, 42000)  # of a run: less is a mistake of units, more is not given
MACHINES = ("NvidiaL4", "NvidiaL4X1", "NvidiaTeslaT4", "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000")
HASHED_A_S = 5e7  # bytes of a dataset that a slow disk gives
LAYOUTS = {  # how Kaggle mounts what a kernel attaches: the old way, and the one with owners
    "flat": ("competition", "arc-ttt-core"),
    "nested": ("competitions/competition", "datasets/owner/arc-ttt-core"),
}
FIXED = {  # of a kernel; anything else is refused for a submission, or fails in it
    "language": "python",
    "kernel_type": "notebook",
    "enable_gpu": True,
    "enable_tpu": False,
    "enable_internet": False,
}
SOURCES = {  # pattern of an entry, and how it is written
    "dataset_sources": (r"[\w-]+/[\w-]+(/\d+)?", "OWNER/SLUG or OWNER/SLUG/VERSION"),
    "kernel_sources": (r"[\w-]+/[\w-]+(/\d+)?", "OWNER/SLUG or OWNER/SLUG/VERSION"),
    "competition_sources": (r"[a-z0-9-]+", "the competition's slug"),
    "model_sources": (r"[\w-]+/[\w.-]+/[\w-]+/[\w.-]+/\d+", "OWNER/MODEL/FRAMEWORK/INSTANCE/VERSION"),
}
FORBIDDEN = (  # notebook parameters that Kaggle leaves no choice of, their one sound value, and why
    ("inputs", MOUNTED, f"Kaggle mounts what is attached in {MOUNTED}"),
    ("solutions", "", "Kaggle shows none"),
    ("tasks", "", "the scored rerun must solve all, and a commit run those in rehearsal_tasks"),
)
BINARY = (".safetensors", ".whl")  # not searched for secrets
L4 = "0, NVIDIA L4, 8.9"  # a GPU as nvidia-smi tells it
TASK = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]]}]}  # of a rehearsal


def find_faults(out: Path, parameters: dict | None = None) -> list[str]:
    """All faults of what is staged below `out`; the rehearsals only where nothing else is wrong.

    parameters: of the notebook there, its own defaults among them; None: are not looked at.
    """
    dataset, kernel = out / "dataset", out / "kernel"
    described, metadata = _metadata(dataset / "dataset-metadata.json"), _metadata(kernel / "kernel-metadata.json")
    faults = dataset_faults(described, dataset) + kernel_faults(metadata, kernel)
    ours, sources = described.get("id"), metadata.get("dataset_sources")
    if isinstance(sources, list) and not any(isinstance(s, str) and f"{s}/".startswith(f"{ours}/") for s in sources):
        faults.append(f"dataset_sources {sources}: lacks {ours}, the dataset of this bundle; add it")
    if parameters is not None:
        faults += profile_faults(parameters) + model_faults(parameters, metadata)
    for folder in (dataset, kernel):
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            faults += file_faults(file)
    return faults or rehearsal_faults(dataset, kernel)


def settings_of(profile: dict) -> config.Config:
    """The settings that a notebook with these parameters solves with; InputError for an unknown preset or setting."""
    return config.preset(profile.get("preset", "grid"), profile.get("settings", "").split())


def profile_faults(profile: dict) -> list[str]:
    """What would let a notebook with these parameters, its own defaults among them, fail in the scored rerun alone."""
    faults, budget_s, spec = [], profile.get("budget_s"), str(profile.get("devices", "auto"))
    try:
        if settings_of(profile).adapt.save:
            faults.append("profile settings adapt.save: adapters fill the 20 GB that Kaggle gives; leave it out")
    except InputError as error:
        faults.append(f"profile: {error}")
    if not (isinstance(budget_s, int | float) and BUDGETS_S[0] <= budget_s <= BUDGETS_S[1]):
        faults.append(f"profile budget_s {budget_s!r}: give the seconds of a run, {BUDGETS_S[0]} to {BUDGETS_S[1]}")
    if not re.fullmatch(r"auto|cuda(:\d+(,\d+)*)?", spec):
        faults.append(f"profile devices {spec!r}: give auto, cuda or cuda:0,1")
    for name, sound, reason in FORBIDDEN:
        if (value := profile.get(name, sound)) != sound:
            faults.append(f"profile {name} {value!r}: {reason}; leave it out")
    for name, remedy in (("model", "or give one by --model"), ("challenges", "the competition's")):
        if (path := str(profile.get(name) or "")) and not path.startswith(f"{MOUNTED}/"):
            told = f"is not there in the rerun, which has no internet; write {name}: '' for what is mounted"
            faults.append(f"profile {name} {path!r}: {told}, {remedy}")
    rehearsed, seconds = str(profile.get("rehearsal_tasks", "3")), profile.get("rehearsal_budget_s", 600)
    if not re.fullmatch(r"[1-9][0-9]?|[0-9a-f]{8}(,[0-9a-f]{8})*", rehearsed):
        faults.append(
            f"profile rehearsal_tasks {rehearsed!r}: give how many tasks a commit run solves, 1 to 99, or their ids"
        )
    if not (isinstance(seconds, int | float) and seconds > 0):
        faults.append(f"profile rehearsal_budget_s {seconds!r}: give the seconds of a commit run")
    if profile.get("run_dir") != WORKING:
        faults.append(f"profile run_dir {profile.get('run_dir')!r}: Kaggle scores what is in {WORKING}")
    return faults


def model_faults(profile: dict, metadata: dict) -> list[str]:
    """Parameters that want a mounted model, without which the rehearsal fails, though the kernel attaches none."""
    wants = {"need_model": profile.get("need_model"), "model": profile.get("model", "").startswith(f"{MOUNTED}/")}
    values = {name: profile[name] for name, is_wanted in wants.items() if is_wanted and not attached(metadata)}
    told = "the kernel attaches no model; name one by --model or in kernel-metadata.json, or write"
    return [f"profile {name} {value!r}: {told} {name}: {json.dumps(type(value)())}" for name, value in values.items()]


def attached(metadata: dict) -> list:
    """What a kernel attaches that may hold a model: all but the competition's data and one dataset, this bundle's."""
    fields = (metadata.get(f"{what}_sources") for what in ("dataset", "model", "kernel"))
    datasets, *others = (values if isinstance(values, list) else [] for values in fields)
    return sum(others, datasets[1:])


def dataset_faults(metadata: dict, folder: Path) -> list[str]:
    """What Kaggle refuses about a dataset."""
    faults = title_faults("dataset ", metadata, least=6)
    slug = str(metadata.get("id")).partition("/")[2]
    if not 6 <= len(slug) <= 50:
        faults.append(f"dataset id {metadata.get('id')!r}: its slug has {len(slug)} characters; give 6 to 50")
    licenses = metadata.get("licenses")
    if not (
        isinstance(licenses, list) and len(licenses) == 1 and isinstance(licenses[0], dict) and "name" in licenses[0]
    ):
        faults.append(f"dataset licenses {licenses!r}: give exactly one, such as [{{'name': 'apache-2.0'}}]")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    if size > MAX_DATASET_GB:
        faults.append(f"dataset size {size:.1f} GB: Kaggle takes {MAX_DATASET_GB}; ship a smaller model")
    return faults + environment.manifest_faults(folder)


def kernel_faults(metadata: dict, folder: Path) -> list[str]:
    """What Kaggle refuses, or accepts and then fails on, about a kernel."""
    faults = title_faults("", metadata, least=5)
    for field, wanted in FIXED.items():
        if metadata.get(field) != wanted or type(metadata.get(field)) is not type(wanted):
            faults.append(f"{field} {metadata.get(field)!r}: a submission needs {wanted!r}")
    if not isinstance(metadata.get("is_private"), bool):
        faults.append(f"is_private {metadata.get('is_private')!r}: give true or false")
    if metadata.get("machine_shape") not in MACHINES:
        faults.append(f"machine_shape {metadata.get('machine_shape')!r}: choose one of {', '.join(MACHINES)}")
    for field, (pattern, written) in SOURCES.items():
        values = metadata.get(field)
        if not isinstance(values, list):
            faults.append(f"{field} {values!r}: give a list")
            continue
        wrong = [value for value in values if not (isinstance(value, str) and re.fullmatch(pattern, value))]
        faults += [f"{field} {value!r}: write {written}" for value in wrong]
        if not values and field in ("competition_sources", "dataset_sources"):
            faults.append(f"{field}: is empty; the notebook needs the competition's data and this bundle's dataset")
    code = folder / str(metadata.get("code_file"))
    if not code.is_file():
        faults.append(f"code_file {metadata.get('code_file')!r}: is not in {folder}")
    elif code.stat().st_size > MAX_NOTEBOOK_MB * 1e6:
        faults.append(f"code_file {code.name}: is {code.stat().st_size / 1e6:.1f} MB; Kaggle takes {MAX_NOTEBOOK_MB}")
    return faults


def file_faults(file: Path) -> list[str]:
    """A staged file that must not leave the house: strays, pickles, notebook outputs, secrets."""
    if file.name.startswith(".") or "__pycache__" in file.parts:
        return [f"{file}: is a stray file; stage again"]
    if file.suffix in PICKLES:
        return [f"{file}: may be a pickle; ship safetensors only"]
    if file.suffix in BINARY:
        return []
    text = file.read_text(errors="replace")
    if environment.redact(text, os.environ) != text:
        return [f"{file}: holds a secret; remove it and revoke the token"]
    if file.suffix == ".ipynb" and any(cell.get("outputs") for cell in json.loads(text)["cells"]):
        return [f"{file}: holds outputs; stage again"]
    return []


def rehearsal_faults(dataset: Path, kernel: Path) -> list[str]:
    """Where the kernel's first cells do not do on a Kaggle of files what they must on the real one."""
    name = _metadata(kernel / "kernel-metadata.json")["code_file"]
    code = ["".join(c["source"]) for c in json.loads((kernel / name).read_text())["cells"] if c["cell_type"] == "code"]
    marks = ("write_fallback(", "is_rehearsal(")
    places = [next((n for n, source in enumerate(code) if mark in source), None) for mark in marks]
    if None in places:
        lacking = marks[places.index(None)]
        return [f"code_file {name}: no cell calls {lacking.rstrip('(')}; a run that fails would leave no submission"]
    faults = []
    for (layout, gpu), rerun in itertools.product((("flat", L4), ("nested", L4), ("flat", "")), (False, True)):
        where = f"code_file {name}: {layout} layout, {'scored rerun' if rerun else 'commit run'}, GPU {gpu or 'none'}"
        ended, tasks, said = rehearse(dataset, code[: places[0]], code[places[0] : places[1] + 1], layout, rerun, gpu)
        if tasks is None:
            faults.append(f"{where}: left no valid submission.json ({said})")
        elif not ended and (rerun or gpu):
            faults.append(f"{where}: stops ({said}); mend what this names")
        elif ended and not (rerun or gpu):
            faults.append(f"{where}: goes on; set need_gpu: true in the profile")
        elif ended and rerun and tasks != "":
            faults.append(f"{where}: solves not all tasks but {tasks!r}; leave `tasks` of the notebook empty")
        elif ended and not rerun and tasks == "":
            faults.append(f"{where}: solves all tasks; set rehearsal_tasks in the profile")
    return faults


def rehearse(dataset: Path, before: list[str], cells: list[str], layout: str, rerun: bool, gpu: str) -> tuple:
    """Run parameters (`before`), fallback and machine `cells` as Kaggle would, in a tree mounted as `layout`.

    Returns whether they ended well, the tasks then chosen (None: no valid fallback stands), and stderr's last line.
    """
    limit_s = 60 + sum(file.stat().st_size for file in dataset.rglob("*") if file.is_file()) / HASHED_A_S
    with tempfile.TemporaryDirectory() as scratch:
        root = fake_kaggle(Path(scratch), dataset, layout, {"0a1b2c3d": TASK}, gpu)
        moved = f"In, inputs, run_dir = [], {str(root / 'input')!r}, {str(root / 'working')!r}"
        no_wheels = "environment.install_wheels = lambda library: []"  # they are for Kaggle's Python
        told = "print('\\nchosen', repr(str(tasks)))"
        command = [sys.executable, "-c", "\n".join([*before, moved, cells[0], no_wheels, *cells[1:], told])]
        environ = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": scratch, **kaggle_environ(rerun)}
        try:
            ran = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=limit_s)
            ended, said = ran.returncode == 0, (ran.stderr.strip().splitlines() or ["no error"])[-1]
            tasks = ast.literal_eval(ran.stdout.splitlines()[-1].partition(" ")[2]) if ended else ""
        except subprocess.TimeoutExpired:
            ended, tasks, said = False, "", f"it took longer than {limit_s:.0f} s"
        submission = root / "working/submission.json"
        wanted = {"0a1b2c3d": [{"attempt_1": PLACEHOLDER, "attempt_2": PLACEHOLDER}]}
        stands = submission.is_file() and json.loads(submission.read_text()) == wanted
    return ended, tasks if stands else None, said


def fake_kaggle(root: Path, dataset: Path, layout: str, challenges: dict, gpu: str = "") -> Path:
    """A /kaggle tree below `root`: `dataset` and the competition's `challenges` mounted, bin/nvidia-smi tells `gpu`.

    Files are linked, not copied: a model may have gigabytes.
    """
    program = root / "bin/nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nprintf '%b' '{gpu}'\n")
    program.chmod(0o755)
    competition, mount = (root / "input" / place for place in LAYOUTS[layout])
    competition.mkdir(parents=True)
    (competition / "arc-agi_test_challenges.json").write_text(json.dumps(challenges))
    (root / "working").mkdir()
    left_out = shutil.ignore_patterns("dataset-metadata.json")
    shutil.copytree(Path(dataset).resolve(), mount, ignore=left_out, copy_function=os.symlink)
    return root


def kaggle_environ(rerun: bool) -> dict[str, str]:
    """The variables by which a notebook knows that it runs on Kaggle, and whether this run is scored."""
    return {"KAGGLE_KERNEL_RUN_TYPE": "Batch"} | ({"KAGGLE_IS_COMPETITION_RERUN": "1"} if rerun else {})


def slugify(title: str) -> str:
    """As Kaggle makes a slug of a title: lower case, everything else a single dash."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def title_faults(what: str, metadata: dict, least: int) -> list[str]:
    """What is wrong with title and id, and whether they fit each other."""
    title, ref = metadata.get("title"), metadata.get("id")
    faults = []
    if not isinstance(title, str) or not least <= len(title) <= 50:
        faults.append(f"{what}title {title!r}: give {least} to 50 characters")
    if not isinstance(ref, str) or not re.fullmatch(r"[\w-]+/[a-z0-9-]+", ref):
        faults.append(f"{what}id {ref!r}: write OWNER/SLUG, the slug of a-z, 0-9 and -")
    elif isinstance(title, str) and ref.partition("/")[2] != slugify(title):
        faults.append(f"{what}id {ref!r}: its slug is not that of the title, {slugify(title)}; make them agree")
    return faults


def _metadata(path: Path) -> dict:
    """The object in a metadata file; an empty one, which is missing every field, where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
