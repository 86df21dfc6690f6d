"""What a choice in pretraining is worth: small bases from nothing, trained for the same time, one choice changed in each.

    python tests/bench/ablate_base.py --data build/data --extra re_arc.json.gz --budget-s 900 --out build/bases \\
        --tasks @tests/bench/small40.txt --hold-out @tests/bench/held_out40.txt --exclude 40853293,caa06a1f --arm NAME

One process trains and measures one arm on one thread, so that two may run side by side: `default`; `one-axis`, rotary
positions over the raster alone; `in-context`, demonstrations in the sequence instead of a vector per task; `no-extra`, no
generated pairs; `originals`, eight views of each original pair in an epoch to one of each generated pair; `no-colours`, no
colour permutations; `deep`, 8 layers of width 192. Written to OUT/NAME.json: tokens, training loss, nats per token of
held-out pairs under their tasks' vectors, and, after a short adaptation, outputs of the `--tasks` solved and nats per
token of their answers. The same command goes on where it was stopped.
"""

import contextlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ablate import measure

from ttt_core.arc import augment, metric
from ttt_core.arc.augment import task_rng
from ttt_core.arc.tasks import Pair, Task, read_challenges, read_ids, select_tasks
from ttt_core.config import preset
from ttt_core.model import gridlm, packing, pretrain, rows
from ttt_core.model.corpus import Corpus, length
from ttt_core.model.load import load_model
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.speed import keep_memory

ARMS = ("default", "one-axis", "in-context", "no-extra", "originals", "no-colours", "deep")
STRIDE, ROLE = 31, 31 * 31  # of the raster: a row end stands behind 30 columns
SHOWN = 3  # demonstrations in a context at most
BESIDE, BELOW, FILLER = 12, 11, 14  # symbols of the grid format that no cell has


def one_axis_table(position_ids: torch.Tensor, head_dim: int, dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """As gridlm.rotary_table, from the place in the raster of rows."""
    role, row, column = position_ids.float().unbind(-1)
    steps = torch.arange(0, head_dim, 2, device=position_ids.device) / head_dim
    angles = ((role * ROLE + row * STRIDE + column)[..., None] * 10_000.0**-steps)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def in_one_grid(shown: list[Pair], asked: np.ndarray) -> np.ndarray:
    """Demonstrations one below the other, output beside input, and then `asked`, as one grid."""
    blocks = []
    for pair in shown:
        height = max(pair.input.shape[0], pair.output.shape[0])
        parts = [np.pad(g, ((0, height - len(g)), (0, 0)), constant_values=FILLER) for g in (pair.input, pair.output)]
        blocks.append(np.concatenate([parts[0], np.full((height, 1), BESIDE, np.uint8), parts[1]], axis=1))
    width = max(block.shape[1] for block in (*blocks, asked))
    lines = [np.full((1, width), BELOW, np.uint8)] * len(blocks)
    padded = [np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=FILLER) for b in (*blocks, asked)]
    return np.concatenate(
        [part for two in zip(padded, [*lines, None], strict=True) for part in two if part is not None]
    )


def with_context(others: list[Pair], pair: Pair, max_tokens: int) -> Pair:
    """`pair` asked after as many of `others`, at most SHOWN, as fit."""
    for n in range(min(SHOWN, len(others)), -1, -1):
        made = Pair(in_one_grid(others[:n], pair.input) if n else pair.input, pair.output)
        if length(Pair(made.input, made.input[:1] if made.output is None else made.output)) <= max_tokens:
            break
    return made


def task_in_context(task: Task, max_tokens: int) -> Task:
    train, test = list(task.train), task.test
    shown = [with_context([*train[i + 1 :], *train[:i]], pair, max_tokens) for i, pair in enumerate(train)]
    return Task(task.id, tuple(shown), tuple(with_context(train, pair, max_tokens) for pair in test))


def corpus_in_context(corpus: Corpus, max_tokens: int) -> Corpus:
    """Every pair after others of its task, drawn once."""
    rng, of_task = task_rng(0, "contexts"), {}
    for index, pair in corpus.pairs:
        of_task.setdefault(index, []).append(pair)

    def shown(index: int, pair: Pair) -> Pair:
        drawn = rng.permutation(len(of_task.get(index, ())))[: SHOWN + 1]
        return with_context([of_task[index][i] for i in drawn if of_task[index][i] is not pair], pair, max_tokens)

    made = (tuple((index, shown(index, pair)) for index, pair in pairs) for pairs in (corpus.pairs, corpus.held_out))
    return Corpus(corpus.task_ids, corpus.free, *made)


def unnamed(net: gridlm.GridLM) -> gridlm.GridLM:
    """`net` without a vector that would tell one task from another."""
    torch.nn.init.zeros_(net.task_vectors.weight)
    net.task_vectors.requires_grad_(False)
    return net


@contextlib.contextmanager
def changed(arm: str, max_tokens: int):
    """Within the context GridLM and its corpus are those of the arm."""
    places = {one: vars(one).copy() for one in (gridlm, packing, pretrain, rows, augment)}
    try:
        if arm == "one-axis":
            gridlm.rotary_table = packing.rotary_table = rows.rotary_table = one_axis_table
        if arm == "in-context":
            read, apply, make = pretrain.read_corpus, augment.apply, pretrain.make_net
            pretrain.make_net = lambda *args: unnamed(make(*args))
            pretrain.read_corpus = lambda *args, **named: corpus_in_context(read(*args, **named), max_tokens)
            symbols = tuple(range(10, 15))  # which no view exchanges
            augment.apply = lambda view, grid: apply(
                augment.Augmentation(view.dihedral, (*view.colors[:10], *symbols)), grid
            )
        yield
    finally:
        for module, names in places.items():
            vars(module).update(names)


def main(
    arm: str = typer.Option(..., help=", ".join(ARMS)),
    data: Path = typer.Option(..., help="folder that `data` wrote"),
    out: Path = typer.Option(..., help="folder of the arms"),
    tasks: str = typer.Option("", help="of the evaluation tasks: N, id,id or @FILE; else none"),
    extra: Path = typer.Option(None, help="generated pairs"),
    hold_out: str = "",
    exclude: str = "",
    budget_s: float = 900.0,
    width: int = 256,
    layers: int = 4,
    max_tokens: int = 512,
    steps: int = typer.Option(64, help="of the adaptation"),
):
    if arm not in ARMS:
        raise SystemExit(f"arm {arm}: choose one of {', '.join(ARMS)}")
    torch.set_num_threads(1)
    keep_memory()
    shape = {"width": 192, "layers": 8} if arm == "deep" else {"width": width, "layers": layers}
    config = PretrainConfig(
        budget_s, **shape, max_tokens=max_tokens, colors="none" if arm == "no-colours" else "free",
        original_views=8 if arm == "originals" else 1,
    )  # fmt: skip
    challenges, model_dir = read_challenges(data / "arc-agi_evaluation_challenges.json"), out / arm
    chosen = select_tasks(challenges, tasks) if tasks else ()
    named = {"hold_out": frozenset(read_ids(hold_out)), "exclude": frozenset(read_ids(exclude))}
    with changed(arm, max_tokens):
        pretrain.pretrain(data, model_dir, config, extra=None if arm == "no-extra" else extra, **named)
        model, asked = load_model(model_dir), preset("grid", [f"adapt.steps={steps}"])
        truths, lines = metric.read_solutions(data / "arc-agi_evaluation_solutions.json"), []
        for task in chosen:
            seen = task_in_context(task, max_tokens) if arm == "in-context" else task
            lines.append(measure(model, seen, truths[task.id], {arm: asked}, 0)[arm])
    last = json.loads((model_dir / "train_log.jsonl").read_text().splitlines()[-1])
    told = {name: last[name] for name in ("seconds", "tokens", "flop", "loss", "held_out_nll")}
    nats = [n for line in lines for n in line["nats"]]
    figures = {
        "arm": arm,
        "parameters": sum(p.numel() for p in model.net.parameters()),
        **told,
        "solved": sum(sum(line["solved"]) for line in lines),
        "outputs": len(nats),
        "nats_per_token": float(np.mean(nats)) if nats else math.nan,
    }
    (out / f"{arm}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()))


if __name__ == "__main__":
    typer.run(main)
