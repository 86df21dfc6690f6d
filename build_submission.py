"""Stages what Kaggle takes: a dataset (library, base model, manifest) and a kernel (the notebook and its metadata).

    python build_submission.py --check                      stage into build/ and check everything that can go wrong
    python build_submission.py --push                       the same, then send both, wait, and fetch log and output
    python build_submission.py --owner NAME --competition C --machine-shape NvidiaTeslaT4

Two builds of one commit are byte-identical. Not here: the checks (`ttt_core/run/kaggle_checks.py`), the sending
(`ttt_core/run/kaggle_push.py`), and what the notebook does on Kaggle (`notebooks/submission.py`).
"""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
import papermill
import typer
import yaml

from ttt_core.arc.tasks import nearest
from ttt_core.errors import InputError, TTTError
from ttt_core.model.load import check_directory
from ttt_core.run import environment, kaggle_client, kaggle_push
from ttt_core.run.environment import fingerprint
from ttt_core.run.kaggle_checks import MACHINES, SOURCES, attached, find_faults, settings_of
from ttt_core.run.kaggle_push import STRAY_OF_MODELS
from ttt_core.run.suited import suited

ROOT = Path(__file__).resolve().parent
NOTEBOOK = "notebooks/submission.py"
STRAY = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
OWNER = "OWNER"  # stands in the templates for the Kaggle user name
GLIBC = 35  # of Kaggle's image: 2.35
WHEEL_TAGS = (*(f"manylinux_2_{n}_x86_64" for n in range(GLIBC, 4, -1)), "manylinux2014_x86_64")
KAGGLE_PYTHON = "3.12"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Path = typer.Option(Path("build"), help="folder for dataset/ and kernel/, which are made anew"),
    owner: str = typer.Option(OWNER, envvar="KAGGLE_USERNAME", help="your Kaggle user name"),
    slug: str = typer.Option("", help="of the kernel; its title follows. Empty: as in kernel-metadata.json"),
    competition: str = typer.Option("", help="slug of the competition. Empty: as in kernel-metadata.json"),
    model: str = typer.Option(
        "", help="model folder to ship, or OWNER/MODEL/FRAMEWORK/INSTANCE/VERSION on Kaggle. Empty: the bundled base"
    ),
    machine_shape: str = typer.Option("", help=f"one of {', '.join(MACHINES)}"),
    profile: Path = typer.Option(ROOT / "notebooks/kaggle.yaml", help="notebook parameters to bake in"),
    wheels: str = typer.Option(
        "", help="PACKAGE,...: wheels of these, not of what they need, for the notebook to install"
    ),
    check: bool = typer.Option(False, help="check what was staged; exit 1 if Kaggle would refuse it or it would fail"),
    send: bool = typer.Option(False, "--push", help="check, then send both to Kaggle and fetch the run's output"),
):
    """Stage dataset and kernel below OUT."""
    try:
        client = kaggle_client.connect() if send else None
        owner = kaggle_client.user_name(client) if client and owner == OWNER else owner
        values = read_profile(profile)
        settings_of(values)
        shipped = Path(model) if model and Path(model).is_dir() else None
        if model and not shipped and not re.fullmatch(SOURCES["model_sources"][0], model):
            raise InputError(
                f"--model {model}: no such folder here, and no {SOURCES['model_sources'][1]}; give one of the two"
            )
        wanted = _template("kernel-metadata.json", owner)
        is_elsewhere = model or values.get("model") or attached(wanted)
        if shipped or not is_elsewhere:  # what lies on Kaggle cannot be looked at from here
            require_preset(shipped or bundled(), profile)
        stage_dataset(out / "dataset", owner, [name for name in wheels.split(",") if name], shipped)
        changes = {"slug": slug, "competition": competition, "machine_shape": machine_shape}
        changes |= {"model": "" if shipped else model, "build": fingerprint(out / "dataset" / environment.MANIFEST)}
        stage_kernel(out / "kernel", owner, profile, **changes)
        if faults := find_faults(out, declared(ROOT / NOTEBOOK) | values) if check or send else []:
            raise SystemExit("\n".join(faults))
        size = sum(file.stat().st_size for file in (out / "dataset").rglob("*") if file.is_file())
        told = " are fit to push" if check or send else ""
        if changes["model"]:
            print(f"{model}: if it is no GridLM, write its preset, such as `preset: nvarc`, into {profile}")
        print(f"{out / 'dataset'} ({size / 1e6:.1f} MB) and {out / 'kernel'}{told}", flush=True)
        if send:
            kaggle_push.push(out, client, say=functools.partial(print, flush=True))
        elif owner == OWNER:
            print(f"{OWNER} stands in both for your Kaggle user name: --push finds it; to push by hand, give --owner")
    except (TTTError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


def require_preset(model: Path, profile: Path):
    """InputError where the profile's preset is for another kind of model; ModelError where `model` cannot be loaded at all."""
    check_directory(model)
    values = read_profile(profile)
    try:
        suited(values.get("preset", "grid"), values.get("settings", "").split(), model)
    except InputError as error:
        raise InputError(f"{error}, in {profile}") from None


def bundled() -> Path:
    """The base model in this repository."""
    return ROOT / "kaggle_dataset/model"


def stage_dataset(folder: Path, owner: str, wheels: Sequence[str] = (), model: Path | None = None):
    """Library, `model` or the bundled base, the `wheels` of packages, metadata, and a manifest of them all."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "ttt_core", folder / "ttt_core", ignore=STRAY)
    shutil.copytree(model or bundled(), folder / "model", ignore=STRAY_OF_MODELS)
    if wheels:
        collect_wheels(folder / environment.WHEELS, wheels)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {file.relative_to(folder).as_posix(): fingerprint(file) for file in files}
    _write_json(folder / environment.MANIFEST, manifest)
    _write_json(folder / "dataset-metadata.json", _template("kaggle_dataset/dataset-metadata.json", owner))


def collect_wheels(folder: Path, packages: Sequence[str]):
    """Wheels of `packages`, without what they need, for Kaggle's image, and the list of them."""
    folder.mkdir()
    tags = [option for tag in (*WHEEL_TAGS, "any") for option in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *tags]
    command += ["--only-binary=:all:", "--python-version", KAGGLE_PYTHON, "--implementation", "cp", *packages]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        reason = next((line for line in ran.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
        raise InputError(f"wheels {', '.join(packages)}: {reason}; check the names, and that pip finds them")
    (folder / environment.WHEEL_LIST).write_text("\n".join(packages) + "\n")


def stage_kernel(
    folder: Path, owner: str, profile: Path, *, slug="", competition="", model="", machine_shape="", build=""
):
    """The notebook with the profile's parameters baked in, and the metadata that `kaggle kernels push` reads.

    build: sha256 of the manifest of the dataset that the notebook is to find.
    """
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
    if not re.fullmatch(r"[\w.-]+\.ipynb", str(code := metadata.get("code_file"))):
        raise InputError(f"kernel-metadata.json: code_file {code!r}: give a bare file name, such as submission.ipynb")
    values = {"build": build, "need_model": bool(metadata.get("model_sources"))} | read_profile(profile)
    nbformat.write(bake(ROOT / NOTEBOOK, values), folder / code)


def read_profile(path: Path) -> dict:
    """Notebook parameters of a YAML file; InputError unless it maps known names to values of the kinds declared."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"profile {path}: cannot be read ({told}); give a YAML file of notebook parameters") from None
    if not isinstance(values, dict):
        raise InputError(f"profile {path}: holds {type(values).__name__}; give a YAML file of notebook parameters")
    known = declared(ROOT / NOTEBOOK)
    for name, value in values.items():
        if fault := _value_fault(name, value, known):
            raise InputError(f"profile {path}: {fault}")
    return values


def _value_fault(name, value, known: dict) -> str | None:
    """Why a profile must not hold `name: value`, if so. known: the notebook's parameters and their own values."""
    if name not in known:
        told = f"unknown, the nearest is {nearest(str(name), known)}; known: {', '.join(known)}"
        return f"notebook parameter {name}: {told}"
    if value is None:
        return f"{name} has no value; give one, '' for empty text, or leave it out"
    if name == "build":
        return f"build {value!r}: is set by build_submission.py, to the dataset's fingerprint; leave it out"
    if environment.is_kind(name, value, kind := type(known[name]).__name__):
        return None
    remedy = "as one text in quotation marks" if kind == "str" else f"like {json.dumps(known[name])}, without any marks"
    return f"{name} {value!r}: is {type(value).__name__} and no {kind}; write it {remedy}"


def bake(source: Path, parameters: dict) -> nbformat.NotebookNode:
    """The notebook of a jupytext source with `parameters` set, which it declares."""
    notebook = jupytext.read(source)
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


def declared(source: Path) -> dict:
    """The parameters that a notebook's jupytext source declares, and their values where nobody sets them."""
    cells = jupytext.read(source).cells
    first = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return {node.target.id: ast.literal_eval(node.value) for node in ast.parse(first).body}


def _template(path: str, owner: str) -> dict:
    """The object in a metadata file of this repository; InputError where it holds none."""
    try:
        content = json.loads((ROOT / path).read_text().replace(f'"{OWNER}/', f'"{owner}/'))
    except (OSError, ValueError) as error:
        raise InputError(f"{ROOT / path}: cannot be read ({error}); mend it") from None
    if not isinstance(content, dict):
        raise InputError(f"{ROOT / path}: holds {type(content).__name__}; write an object of fields, such as id, title")
    return content


def _write_json(path: Path, value: dict):
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    app()
