"""Stages what Kaggle takes: a dataset (the library, the base model, a manifest) and a kernel (the notebook, its metadata).

    python build_submission.py --check                      stage into build/ and check everything that can go wrong
    python build_submission.py --owner NAME --competition C --machine-shape NvidiaTeslaT4

Two builds of one commit are byte-identical. Not here: sending it (`kaggle datasets create -p build/dataset --dir-mode zip`,
then `kaggle kernels push -p build/kernel`), and what the notebook does on Kaggle (`notebooks/submission.py`).
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
import papermill
import typer
import yaml

from ttt_core.arc.submission import PLACEHOLDER
from ttt_core.errors import InputError, TTTError
from ttt_core.run import environment

ROOT = Path(__file__).resolve().parent
STRAY = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
OWNER = "OWNER"  # stands in the templates for the Kaggle user name
MAX_DATASET_GB = 200  # Kaggle's limit for a dataset
MAX_NOTEBOOK_MB = 1  # Kaggle's limit for a pushed notebook
MACHINES = ("NvidiaL4", "NvidiaL4X1", "NvidiaTeslaT4", "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000")
LAYOUTS = {  # how Kaggle mounts what a kernel attaches: the old way, and the one with owners
    "flat": ("competition", "arc-ttt-core"),
    "nested": ("competitions/competition", "datasets/owner/arc-ttt-core"),
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Path = typer.Option(Path("build"), help="folder for dataset/ and kernel/, which are made anew"),
    owner: str = typer.Option(OWNER, envvar="KAGGLE_USERNAME", help="your Kaggle user name"),
    slug: str = typer.Option("", help="of the kernel; its title follows. Empty: as in kernel-metadata.json"),
    competition: str = typer.Option("", help="slug of the competition. Empty: as in kernel-metadata.json"),
    model: str = typer.Option("", help="OWNER/MODEL/FRAMEWORK/INSTANCE/VERSION on Kaggle. Empty: the bundled base"),
    machine_shape: str = typer.Option("", help=f"one of {', '.join(MACHINES)}"),
    profile: Path = typer.Option(ROOT / "notebooks/kaggle.yaml", help="notebook parameters to bake in"),
    check: bool = typer.Option(False, help="check what was staged; exit 1 if Kaggle would refuse it or it would fail"),
):
    """Stage dataset and kernel below OUT."""
    try:
        stage_dataset(out / "dataset", owner)
        changes = {"slug": slug, "competition": competition, "model": model, "machine_shape": machine_shape}
        stage_kernel(out / "kernel", owner, profile, **changes)
        faults = find_faults(out) if check else []
    except TTTError as error:
        raise SystemExit(f"error: {error}") from None
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        raise SystemExit(1)
    size = sum(file.stat().st_size for file in (out / "dataset").rglob("*") if file.is_file())
    print(f"{out / 'dataset'} ({size / 1e6:.1f} MB) and {out / 'kernel'}{' are fit to push' if check else ''}")
    if owner == OWNER:
        print("before a push: give --owner, your Kaggle user name")


def stage_dataset(folder: Path, owner: str):
    """Library, base model, metadata, and a manifest of them all."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "ttt_core", folder / "ttt_core", ignore=STRAY)
    shutil.copytree(ROOT / "kaggle_dataset/model", folder / "model", ignore=STRAY)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {file.relative_to(folder).as_posix(): environment.fingerprint(file) for file in files}
    _write_json(folder / environment.MANIFEST, manifest)
    _write_json(folder / "dataset-metadata.json", _template("kaggle_dataset/dataset-metadata.json", owner))


def stage_kernel(folder: Path, owner: str, profile: Path, *, slug="", competition="", model="", machine_shape=""):
    """The notebook with the profile's parameters baked in, and the metadata that `kaggle kernels push` reads."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    metadata = _template("kernel-metadata.json", owner)
    if slug:
        metadata |= {"id": f"{owner}/{slug}", "title": slug.replace("-", " ")}
    if competition:
        metadata["competition_sources"] = [competition]
    if model:
        metadata["model_sources"] = [model]
    if machine_shape:
        metadata["machine_shape"] = machine_shape
    _write_json(folder / "kernel-metadata.json", metadata)
    nbformat.write(bake(ROOT / "notebooks/submission.py", read_profile(profile)), folder / metadata["code_file"])


def read_profile(path: Path) -> dict:
    """Notebook parameters of a YAML file; InputError unless it is a mapping."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"profile {path}: cannot be read ({error}); give a YAML file of notebook parameters") from None
    if not isinstance(values, dict):
        raise InputError(f"profile {path}: holds {type(values).__name__}; give a YAML file of notebook parameters")
    return values


def bake(source: Path, parameters: dict) -> nbformat.NotebookNode:
    """The notebook of a jupytext source with `parameters` set; InputError for one that it does not declare."""
    notebook = jupytext.read(source)
    declared = next(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    known = {node.target.id for node in ast.parse(declared).body if isinstance(node, ast.AnnAssign)}
    for name in parameters:
        if name not in known:
            raise InputError(f"notebook parameter {name}: unknown to {source.name}; known: {', '.join(sorted(known))}")
    with tempfile.TemporaryDirectory() as scratch:
        plain, baked = Path(scratch, "plain.ipynb"), Path(scratch, "baked.ipynb")
        jupytext.write(notebook, plain)
        papermill.execute_notebook(plain, baked, parameters, prepare_only=True, progress_bar=False, log_output=False)
        notebook = nbformat.read(baked, as_version=4)
    for number, cell in enumerate(notebook.cells):  # ids by position and no time stamps, so that builds are identical
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"]})
    return notebook


def find_faults(out: Path) -> list[str]:
    """One line a fault of what is staged below `out`, each beginning with the field or file it is about."""
    dataset, kernel = out / "dataset", out / "kernel"
    metadata = json.loads((kernel / "kernel-metadata.json").read_text())
    faults = dataset_faults(json.loads((dataset / "dataset-metadata.json").read_text()), dataset)
    faults += kernel_faults(metadata, kernel)
    for folder in (dataset, kernel):
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            faults += file_faults(file)
    return faults or [
        fault
        for name in LAYOUTS
        for rerun in (False, True)
        for fault in rehearse(dataset, kernel, metadata, name, rerun)
    ]


def dataset_faults(metadata: dict, folder: Path) -> list[str]:
    """What Kaggle refuses about a dataset: the limits of its client and server."""
    faults = []
    title, (owner, _, slug) = metadata.get("title", ""), metadata.get("id", "").partition("/")
    if not 6 <= len(title) <= 50:
        faults.append(f"dataset title {title!r}: has {len(title)} characters; give 6 to 50")
    if not owner or not 6 <= len(slug) <= 50 or slug != slugify(slug):
        faults.append(f"dataset id {metadata.get('id')!r}: write OWNER/SLUG, the slug of 6 to 50 of a-z, 0-9 and -")
    if len(metadata.get("licenses", [])) != 1:
        faults.append(f"dataset licenses {metadata.get('licenses')}: give exactly one")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    if size > MAX_DATASET_GB:
        faults.append(f"dataset size {size:.1f} GB: Kaggle takes {MAX_DATASET_GB}; ship a smaller model")
    return faults + environment.manifest_faults(folder)


def kernel_faults(metadata: dict, folder: Path) -> list[str]:
    """What Kaggle refuses, or accepts and then fails on, about a kernel."""
    faults = []
    title, (owner, _, slug) = metadata.get("title", ""), metadata.get("id", "").partition("/")
    if not 5 <= len(title) <= 50:
        faults.append(f"title {title!r}: has {len(title)} characters; give 5 to 50")
    if not owner or slug != slugify(title):
        faults.append(
            f"id {metadata.get('id')!r}: its slug is not that of the title, {slugify(title)}; make them agree"
        )
    for field, wanted in {
        "language": "python",
        "kernel_type": "notebook",
        "enable_internet": False,
        "enable_gpu": True,
    }.items():
        if metadata.get(field) != wanted or type(metadata.get(field)) is not type(wanted):
            faults.append(f"{field} {metadata.get(field)!r}: a submission needs {wanted!r}")
    if metadata.get("machine_shape") not in MACHINES:
        faults.append(f"machine_shape {metadata.get('machine_shape')!r}: choose one of {', '.join(MACHINES)}")
    patterns = {"dataset_sources": r"[\w-]+/[\w-]+(/\d+)?", "kernel_sources": r"[\w-]+/[\w-]+(/\d+)?"}
    patterns |= {"competition_sources": r"[a-z0-9-]+", "model_sources": r"[\w-]+/[\w-]+/\w+/[\w.-]+/\d+"}
    for field, pattern in patterns.items():
        for value in metadata.get(field, []):
            if not (isinstance(value, str) and re.fullmatch(pattern, value)):
                faults.append(f"{field} {value!r}: is not of the form {pattern}")
    for field in ("competition_sources", "dataset_sources"):
        if not metadata.get(field):
            faults.append(f"{field}: is empty; the notebook needs the competition's data and this bundle's dataset")
    code = folder / metadata.get("code_file", "")
    if not code.is_file():
        faults.append(f"code_file {metadata.get('code_file')!r}: is not in {folder}")
    elif code.stat().st_size > MAX_NOTEBOOK_MB * 1e6:
        faults.append(f"code_file {code.name}: is {code.stat().st_size / 1e6:.1f} MB; Kaggle takes {MAX_NOTEBOOK_MB}")
    return faults


def file_faults(file: Path) -> list[str]:
    """A staged file that must not leave the house: strays, pickles, secrets."""
    if file.name.startswith(".") or "__pycache__" in file.parts:
        return [f"{file}: is a stray file; stage again"]
    if file.suffix in (".pkl", ".pt", ".pth", ".bin", ".ckpt"):
        return [f"{file}: may be a pickle; ship safetensors only"]
    if file.suffix != ".safetensors" and environment.redact(text := file.read_text(), os.environ) != text:
        return [f"{file}: holds a secret; remove it and revoke the token"]
    return []


def rehearse(dataset: Path, kernel: Path, metadata: dict, layout: str, rerun: bool) -> list[str]:
    """Run the kernel's cells up to the fallback as Kaggle would, in a tree mounted as `layout`."""
    notebook = nbformat.read(kernel / metadata["code_file"], as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    last = next(number for number, source in enumerate(code) if "write_fallback(" in source)
    with tempfile.TemporaryDirectory() as scratch:
        root, challenges = fake_kaggle(Path(scratch), dataset, layout), {"0a1b2c3d": _tiny_task()}
        data = root / "input" / LAYOUTS[layout][0]
        (data / "arc-agi_test_challenges.json").write_text(json.dumps(challenges))
        moved = f"inputs, run_dir = {str(root / 'input')!r}, {str(root / 'working')!r}"
        code = [*code[:last], moved, code[last]]
        environ = {"PATH": os.environ["PATH"], "HOME": scratch, **kaggle_environ(rerun)}
        try:
            ran = subprocess.run(
                [sys.executable, "-c", "\n".join(code)],
                cwd=root,
                env=environ,
                capture_output=True,
                text=True,
                timeout=60,
            )
            reason = ran.stderr.strip().splitlines()[-1:] if ran.returncode else []
        except subprocess.TimeoutExpired:
            reason = ["it took longer than 60 s"]
        submission = root / "working/submission.json"
        wanted = {"0a1b2c3d": [{"attempt_1": PLACEHOLDER, "attempt_2": PLACEHOLDER}]}
        if not reason and (not submission.is_file() or json.loads(submission.read_text()) != wanted):
            reason = ["it left no valid submission.json"]
    return [f"code_file: fails in the {layout} layout, rerun={rerun}: {reason[0]}"] if reason else []


def fake_kaggle(root: Path, dataset: Path, layout: str) -> Path:
    """A /kaggle tree below `root` with `dataset` mounted and an empty folder for the competition's data."""
    competition, mount = (root / "input" / place for place in LAYOUTS[layout])
    competition.mkdir(parents=True)
    (root / "working").mkdir()
    shutil.copytree(dataset, mount, ignore=shutil.ignore_patterns("dataset-metadata.json"))
    return root


def kaggle_environ(rerun: bool) -> dict[str, str]:
    """The variables by which a notebook knows that it runs on Kaggle, and whether this run is scored."""
    return {"KAGGLE_KERNEL_RUN_TYPE": "Batch"} | ({"KAGGLE_IS_COMPETITION_RERUN": "1"} if rerun else {})


def slugify(title: str) -> str:
    """As Kaggle makes a slug of a title: lower case, everything else a single dash."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _template(path: str, owner: str) -> dict:
    return json.loads((ROOT / path).read_text().replace(f'"{OWNER}/', f'"{owner}/'))


def _write_json(path: Path, value: dict):
    path.write_text(json.dumps(value, indent=2) + "\n")


def _tiny_task() -> dict:
    return {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]]}]}


if __name__ == "__main__":
    app()
