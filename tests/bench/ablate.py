"""What a setting of the solver is worth: the same tasks under several arms, side by side in one run.

    python tests/bench/ablate.py --data build/data --tasks @tests/bench/small40.txt \\
        --arm full= --arm "lora 8=adapt.method=lora adapt.rank=8" --json FILE

An arm is a name and the settings that differ from the preset. Printed per arm: outputs solved (two attempts; 95 %
Wilson interval), outputs whose answer was among the candidates, outputs solved under each selector, nats per token of the
true answers under the adapted model (mean over the scoring views), and seconds a task. Arms that differ only in search and
vote share an adaptation. Arms take turns task by task, so that a busy machine is as slow for each. A task's line is
written to FILE as soon as it is done; the same command goes on where it was stopped, and another one is refused.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ttt_core.arc import augment, metric
from ttt_core.arc.encode import answer_ids
from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Task, read_challenges, select_tasks
from ttt_core.config import Config, preset, to_dict
from ttt_core.errors import InputError, TTTError
from ttt_core.model.load import LoadedModel, load_model
from ttt_core.model.speed import keep_memory
from ttt_core.run.store import write_atomic
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore
from ttt_core.solve.task import adapted_to, answer_tasks
from ttt_core.solve.vote import SELECTORS, select


def measure(model: LoadedModel, task: Task, truths: Sequence[np.ndarray], arms: dict[str, Config], seed: int) -> dict:
    """One task under arms of one `adapt`: by arm, lists over its test inputs of solved, found, nats per token; seconds.

    selectors: solved under each of the selectors, from the same candidates.
    """
    config, began, lines = next(iter(arms.values())), time.monotonic(), {}
    with adapted_to(model, task, config.adapt, seed, math.inf) as notes:
        adapt_s = time.monotonic() - began
        nats = [_nats(model, task, index, truth, config, seed) for index, truth in enumerate(truths)]
        for arm, own in arms.items():
            [result] = answer_tasks(model, [task], own, seed, math.inf, beat=lambda *_: None)
            solved = {name: _solved(result, task, truths, name) for name in SELECTORS}
            lines[arm] = {
                "solved": solved[own.vote.selector],
                "found": [
                    any(np.array_equal(c.grid, truth) for c in candidates)
                    for candidates, truth in zip(result.candidates, truths, strict=True)
                ],
                "selectors": solved,
                "nats": nats,
                "steps": notes["steps"],
                "seconds": round(adapt_s + sum(result.seconds.values()), 2),
            }
    return lines


def _solved(result: TaskResult, task: Task, truths: Sequence[np.ndarray], selector: str) -> list[bool]:
    chosen = [select(c, selector, pair.input) for c, pair in zip(result.candidates, task.test, strict=True)]
    return [any(np.array_equal(grid, truth) for grid in two) for two, truth in zip(chosen, truths, strict=True)]


def _nats(model: LoadedModel, task: Task, index: int, truth: np.ndarray, config: Config, seed: int) -> float:
    """Mean nats per token of a true answer over the scoring views."""
    views = augment.draw_views(task, config.rescore.views, augment.task_rng(seed, task.id, "views"))
    queries = [Query(model.format.query(augment.view(v, task), index), v.dihedral) for v in views]
    scores = rescore(model, queries, [truth], views, config.rescore, math.inf)[0]
    tokens = [len(answer_ids(model.format.grammar, augment.apply(v, truth))) for v in views]
    return float(np.mean(-scores / tokens))


def groups(arms: dict[str, Config]) -> list[dict[str, Config]]:
    """The arms that adapt alike, together: they share one adaptation."""
    alike: dict = {}
    for arm, config in arms.items():
        alike.setdefault(config.adapt, {})[arm] = config
    return list(alike.values())


def table(lines: list[dict], arms: list[str]) -> list[dict]:
    """One row an arm, over the tasks that all arms have done."""
    done = {(line["task"], line["arm"]): line for line in lines}
    tasks = [t for t in dict.fromkeys(line["task"] for line in lines) if all((t, arm) in done for arm in arms)]
    rows = []
    for arm in arms:
        own = [done[t, arm] for t in tasks]
        solved, outputs = (sum(count(line["solved"]) for line in own) for count in (sum, len))
        low, high = metric.wilson(solved, outputs) if outputs else (0.0, 1.0)
        rows.append(
            {
                "arm": arm,
                "tasks": len(own),
                "solved": f"{solved} of {outputs} ({low:.3f} to {high:.3f})",
                "found": sum(sum(line["found"]) for line in own),
                **{name: sum(sum(line["selectors"][name]) for line in own) for name in SELECTORS},
                "nats_per_token": float(np.mean([n for line in own for n in line["nats"]] or [math.nan])),
                "seconds_per_task": float(np.mean([line["seconds"] for line in own] or [math.nan])),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("kaggle_dataset/model"))
    parser.add_argument("--data", type=Path, required=True, help="folder that `data` wrote")
    parser.add_argument("--split", choices=["training", "evaluation"], default="evaluation")
    parser.add_argument("--tasks", help="N, id,id or @FILE; else all")
    parser.add_argument("--preset", default="grid")
    parser.add_argument("--arm", action="append", required=True, help="NAME=SETTING SETTING ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True, help="a line a task and arm; continued where it exists")
    try:
        compare(parser.parse_args())
    except TTTError as error:
        raise SystemExit(f"error: {error}") from None


def compare(options: argparse.Namespace) -> None:
    """Measure what the file lacks, and print a row an arm."""
    keep_memory()
    arms = {name: preset(options.preset, told.split()) for name, _, told in (a.partition("=") for a in options.arm)}
    if len(arms) < len(options.arm):
        raise InputError(f"--arm {', '.join(options.arm)}: two have the same name; give each its own")
    if len({arm.second for arm in arms.values()}) > 1:
        raise InputError("arms differ in second.*, but all make one pass; compare further passes by runs of `solve`")
    if len({arm.model for arm in arms.values()}) > 1:
        raise InputError("arms differ in model.*: the model is loaded once for all; run them one after the other")
    given = next(iter(arms.values())).model
    model = load_model(options.model, dtype=given.dtype, format=None if given.format == "auto" else given.format)
    tasks = select_tasks(read_challenges(options.data / f"arc-agi_{options.split}_challenges.json"), options.tasks)
    truths = metric.read_solutions(options.data / f"arc-agi_{options.split}_solutions.json")
    written = options.json.read_bytes() if options.json.exists() else b""
    whole, _, torn = written.rpartition(b"\n")
    if torn:  # by a kill
        write_atomic(options.json, whole + b"\n" if whole else b"")
    lines = [json.loads(line) for line in whole.splitlines()]
    made_by = {arm: _digest(config, options.seed, model) for arm, config in arms.items()}
    for line in lines:
        if made_by.get(line["arm"], line.get("made_by")) != line.get("made_by"):
            told = f"arm {line['arm']} was measured with other settings, another seed or another model"
            raise InputError(f"{options.json}: {told}; give another file, or the arm another name")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with open(options.json, "a") as out:
        for task in tasks:
            done = {line["arm"] for line in lines if line["task"] == task.id}
            for together in groups({arm: config for arm, config in arms.items() if arm not in done}):
                for arm, measured in measure(model, task, truths[task.id], together, options.seed).items():
                    lines.append({"task": task.id, "arm": arm, "made_by": made_by[arm], **measured})
                    out.write(json.dumps(lines[-1]) + "\n")
                out.flush()
    chosen = {task.id for task in tasks}
    for row in table([line for line in lines if line["task"] in chosen], list(arms)):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


def _digest(config: Config, seed: int, model: LoadedModel) -> str:
    """What an arm's lines depend on, but for the task."""
    return hashlib.sha256(json.dumps([to_dict(config), seed, model.sha256]).encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
