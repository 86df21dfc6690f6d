"""The command line: `python -m ttt_core data | pretrain | solve | score | doctor | report | reselect`.

Exit code 0: the command did its work; for `solve`, a valid submission stands, whatever was solved. 1: `doctor` found a
fault. 2: a bad argument or file, told in one line on stderr that names it and the remedy. 130: Ctrl-C, before `solve` has
written a file. Only argument handling lives here.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ttt_core.errors import InputError, TTTError

app = typer.Typer(
    help="Test-time training for ARC grid puzzles: from a challenge file to submission.json.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
UsageError = typer.BadParameter.__base__  # of click, or of the copy of click inside typer


@app.command()
def data(
    edition: Annotated[str, typer.Option(help="arc-agi-1, arc-agi-2 or kaggle-2025")],
    out: Annotated[Path, typer.Option(help="folder for the six files")],
):
    """Write the Kaggle-named files of an edition."""
    from ttt_core.arc.editions import write_edition

    for path in write_edition(edition, out):
        print(path)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="model folder; an unfinished one is continued")],
    budget_s: Annotated[float, typer.Option(help="seconds in all; a step once begun is ended")],
    data: Annotated[Path | None, typer.Option(help="folder that `data` wrote: its training files are learnt")] = None,
    extra: Annotated[
        Path | None, typer.Option(help="generated pairs: JSON file of id to pairs, or RE-ARC's folder of <id>.json")
    ] = None,
    transductive: Annotated[
        Path | None, typer.Option(help="challenge file whose demonstrations are learnt too")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="model folder to start from; else from nothing")] = None,
    challenges: Annotated[Path | None, typer.Option(help="file to be evaluated on; refused as training data")] = None,
    hold_out: Annotated[str | None, typer.Option(help="id,id or @FILE: tasks whose test pairs are not learnt")] = None,
    exclude: Annotated[str | None, typer.Option(help="id,id or @FILE: tasks left out, of --data if of both")] = None,
    width: Annotated[int | None, typer.Option(help="model width of a model from nothing: 256")] = None,
    layers: Annotated[int | None, typer.Option(help="number of layers of a model from nothing: 4")] = None,
    heads: Annotated[int | None, typer.Option(help="number of attention heads of a model from nothing: 4")] = None,
    batch_tokens: Annotated[int, typer.Option(help="tokens of a step in each process")] = 4096,
    max_tokens: Annotated[int, typer.Option(help="longer pairs are left out; 1863 keeps all")] = 512,
    muon_lr: Annotated[float, typer.Option(help="peak rate of the layers' matrices")] = 0.02,
    lr: Annotated[float, typer.Option(help="peak rate of embeddings, norms and head")] = 2e-3,
    vector_lr: Annotated[float, typer.Option(help="peak rate of the task vectors")] = 1e-2,
    dropout: Annotated[float, typer.Option(help="share of the residual updates that is dropped")] = 0.0,
    ema: Annotated[float, typer.Option(help="decay of averaged weights, such as 0.999; 0: none")] = 0.0,
    colors: Annotated[str, typer.Option(help="exchanged in views: none, free, outputs_fixed or all (but 0)")] = "free",
    original_views: Annotated[int, typer.Option(help="of each pair that is not generated, in an epoch")] = 1,
    scale_share: Annotated[float, typer.Option(help="share of the pairs that is enlarged")] = 0.0,
    translate_share: Annotated[float, typer.Option(help="share of the pairs of one size that is moved")] = 0.0,
    packed: Annotated[
        bool | None,
        typer.Option(help="rows without padding instead of batches; default: on GPUs from 8.0 on, torch from 2.11 on"),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile; a minute or more to begin, then faster")
    ] = False,
    save_every_s: Annotated[float, typer.Option(help="seconds between checkpoints")] = 120.0,
    piece_s: Annotated[float, typer.Option(help="seconds of this call; the next call goes on")] = float("inf"),
    seed: int = 0,
):
    """Train a GridLM on training tasks, or on the demonstrations of a challenge file; torchrun trains on several GPUs."""
    began = time.monotonic()  # what is imported takes seconds
    from ttt_core.arc.tasks import read_ids
    from ttt_core.model import pretrain as training
    from ttt_core.model.pretrain_config import PretrainConfig

    given = {name: value for name, value in locals().items() if value is not None}
    held, left_out = (frozenset(read_ids(spec or "")) for spec in (hold_out, exclude))
    names = PretrainConfig.__dataclass_fields__
    if base and (shape := [name for name in ("width", "layers", "heads") if name in given]):
        raise InputError(
            f"--{shape[0]} {given[shape[0]]}: the base has its own shape; leave it out, or leave --base out"
        )
    trained = training.pretrain(
        data,
        out,
        PretrainConfig(**{name: given[name] for name in names if name in given}),
        extra=extra,
        transductive=transductive,
        base=base,
        hold_out=held,
        exclude=left_out,
        guard=challenges,
        began=began,
    )
    if os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes
        print(f"model: {trained}; its losses as a picture: python -m ttt_core report {trained}")


@app.command()
def solve(
    challenges: Annotated[Path, typer.Argument(help="challenge file, or folder of <id>.json")],
    model: Annotated[str, typer.Option(help="folder of the base model, or OWNER/NAME on Hugging Face")],
    out: Annotated[Path, typer.Option(help="run folder; one with the same settings is continued")],
    budget_s: Annotated[float, typer.Option(help="seconds for everything, the last build included")],
    tasks: Annotated[str | None, typer.Option(help="N: those with the fewest cells; id,id; @FILE; else all")] = None,
    preset: Annotated[str, typer.Option(help="settings to start from")] = "grid",
    set_: Annotated[list[str] | None, typer.Option("--set", help="change one: adapt.rank=64; repeatable")] = None,
    seed: int = 0,
    devices: Annotated[str, typer.Option(help="auto, cpu, cpu:2, cuda, cuda:0,1 or ray://HOST:PORT")] = "auto",
    fallback: Annotated[bool, typer.Option("--fallback", help="the bundled base where MODEL cannot be had")] = False,
):
    """Solve tasks within a budget; leaves a valid OUT/submission.json in any case."""
    started = time.monotonic()  # what is imported takes a second
    from ttt_core import config
    from ttt_core.model.access import resolve
    from ttt_core.model.signals import leaving_on_signals
    from ttt_core.run.run import run, write_fallback
    from ttt_core.run.suited import suited

    config.preset(preset, set_ or ())  # for an error before anything is written
    with leaving_on_signals((out / "submission.json").exists):
        write_fallback(challenges, out)  # before a download that may take long
        access = resolve(model, fallback=fallback)
    options, told = suited(
        preset, set_ or (), access.path, strict=not access.note
    )  # with a note the bundled one stands in
    if note := "; ".join(filter(None, (access.note, told))):
        print(note, file=sys.stderr)
    summary = run(
        challenges, access.path, out, config=options, budget_s=budget_s, tasks=tasks, seed=seed, devices=devices,
        started=started, model_note=note,
    )  # fmt: skip
    if summary.stopped:
        print(f"left early: {summary.stopped}", file=sys.stderr)
    counts = f"{summary.ok} ok, {summary.failed} failed, {summary.skipped} skipped"
    print(f"{counts} in {summary.seconds:.0f} s of {budget_s:g} s: {summary.submission}")


@app.command()
def score(
    submission: Annotated[Path, typer.Argument(help="submission.json")],
    solutions: Annotated[Path, typer.Argument(help="the edition's solutions file")],
    tasks: Annotated[str | None, typer.Option(help="N, id,id or @FILE; else those of the run, else all")] = None,
):
    """Print outputs solved, tasks solved, and the Kaggle score with its 95 % interval."""
    from ttt_core.arc import metric
    from ttt_core.arc.submission import read

    answers, truths = read(submission), metric.read_solutions(solutions)
    if tasks is not None:
        ids, told = _chosen(tasks, solutions, truths), f"the tasks of --tasks {tasks}"
    else:
        ids, told = _of_run(submission.parent)
        if ids is not None and (unknown := len(ids) - len(known := [task_id for task_id in ids if task_id in truths])):
            if not known:
                raise InputError(
                    f"solutions {solutions}: hold none of the tasks of {submission.parent}; give those of its edition"
                )
            ids, told = known, f"{told} but {unknown} that {solutions.name} does not know"
    if ids is not None:
        print(f"scored on {told}; the solutions file holds {len(truths)} tasks")
    print(metric.format_score(metric.score(answers, truths, ids)))


@app.command()
def doctor(
    model: Annotated[str, typer.Option(help="folder of the base model, or OWNER/NAME")] = "kaggle_dataset/model",
    challenges: Annotated[Path | None, typer.Option(help="challenge file to be solved")] = None,
    preset: Annotated[str, typer.Option(help="settings of the self-test, as of `solve`")] = "grid",
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
):
    """Whether a run would work here: versions, devices, memory, inputs, and a self-test; exit 1 if it would fail."""
    import dataclasses
    import json

    from ttt_core.run.doctor import examine, table

    checks = examine(model, challenges, preset=preset)
    print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1) if as_json else table(checks))
    if any(check.fault for check in checks):
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the --out folder of a solve, or of a pretrain")],
    solutions: Annotated[Path | None, typer.Option(help="the edition's solutions file, for what was right")] = None,
    challenges: Annotated[Path | None, typer.Option(help="the run's challenge file, if it has moved")] = None,
):
    """Write FOLDER/report.html: score, every task's attempts, candidates, seconds; of a training train_log.png."""
    from ttt_core.run import curves, receipt
    from ttt_core.run.report import write_report

    if (folder / curves.LOG).is_file():
        print(curves.write_curves(folder))
    elif (folder / receipt.NAME).is_file():
        print(write_report(folder, solutions, challenges))
    else:
        told = f"holds neither {receipt.NAME} nor {curves.LOG}" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {told}; give the --out folder of a `solve`, or of a `pretrain` that has saved")


@app.command()
def reselect(
    run_dir: Annotated[Path, typer.Argument(help="the --out folder of a solve")],
    selector: Annotated[str, typer.Option(help="name of the vote, such as majority")],
    challenges: Annotated[Path | None, typer.Option(help="the run's challenge file, if it has moved")] = None,
):
    """Vote again over the candidates of a run; needs no model."""
    from ttt_core.run.run import reselect as vote_again

    print(vote_again(run_dir, selector, challenges))
    if (run_dir / "report.html").exists():
        print("report.html shows the new vote, not yet judged: give `report` the --solutions again", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        code = app(arguments, prog_name="python -m ttt_core", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        command = getattr(error.ctx, "command_path", "python -m ttt_core")
        return _complain(f"{error.format_message().rstrip('.')}; see {command} --help")
    except (TTTError, OSError) as error:
        return _complain(str(error))


def _complain(message: str) -> int:
    from ttt_core.run.environment import redact

    print("error:", redact(" ".join(message.split()), os.environ), file=sys.stderr)
    return 2


def _chosen(spec: str, solutions: Path, truths: dict) -> tuple[str, ...]:
    """Ids of a selection; a number counts cells, which only the challenge file beside the solutions can tell."""
    from ttt_core.arc.tasks import Challenges, Task, read_challenges, select_tasks

    beside = solutions.with_name(solutions.name.replace("solutions", "challenges"))
    if beside != solutions and beside.exists():
        return tuple(task.id for task in select_tasks(read_challenges(beside), spec))
    if spec.strip().isdigit() and spec.strip() not in truths:
        raise InputError(f"--tasks {spec}: needs the challenge file {beside.name} beside the solutions, or give ids")
    known = tuple(Task(task_id, (), ()) for task_id in truths)
    return tuple(task.id for task in select_tasks(Challenges(known, {}, dict.fromkeys(truths, 1)), spec))


def _of_run(run_dir: Path) -> tuple[list[str] | None, str]:
    """The tasks of the run that wrote the submission, and how to call them; (None, "") where there is no run."""
    from ttt_core.run import receipt

    try:
        told = receipt.read(run_dir)
    except InputError as error:
        print(f"{error}; all tasks of the solutions file are scored", file=sys.stderr)
        told = None
    if not told or not told["tasks"]:
        return None, ""
    selection = (told.get("selection") or "").strip()
    rule = (
        "those with the fewest cells"
        if selection.isdigit() and selection not in told["tasks"]
        else f"selected by {selection}"
        if selection
        else "all of its file"
    )
    return list(told["tasks"]), f"the {len(told['tasks'])} tasks of this run ({rule})"


if __name__ == "__main__":
    sys.exit(main())
