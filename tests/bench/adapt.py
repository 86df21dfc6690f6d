"""The adaptation engine against PEFT and the transformers Trainer: `python tests/bench/adapt.py [--json FILE] [--toy]`.

(a) PEFT LoRA with the Trainer: weights and autocast in bf16, no dropout, SDPA, dynamic padding, stock vocabulary; (b) ours.
Both train the same 64 sequences of 4 real tasks, four a step, on models of random weights shaped as GPT-2 small, a 25 M
GridLM and a 135 M Llama; each in a process of its own. Tokens are those of the sequences, padding not counted. Memory
is weights and the peak of all storages alive in a step of the four longest sequences; `rss` what the process grew by.
Utilisation counts the FLOP that LoRA needs (frozen weights 4 a token, adapters 6, attention's lower triangle). The loss
gap is taken in float32 with the cut vocabulary in both. Then 64 sequences of one task on GPT-2 small, one a step.

`--shared`, where others use the machine: one thread, CPU seconds instead of the clock's. `--count`: not 64 sequences.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import typer
from torch.utils.data import SequentialSampler
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ttt_core.arc.augment import task_rng
from ttt_core.arc.editions import write_edition
from ttt_core.arc.encode import DIGITS, FORMATS, IGNORE
from ttt_core.arc.tasks import read_challenges
from ttt_core.config import AdaptConfig
from ttt_core.model import adapter_files, lora
from ttt_core.model.batches import collate
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import LoadedModel
from ttt_core.model.memory import Meter
from ttt_core.model.speed import keep_memory
from ttt_core.solve.adapt import plan_of, trainable
from ttt_core.solve.feed import stream
from ttt_core.solve.fit import fit

CPU = torch.device("cpu")
STEP = 4  # sequences of an optimiser step
RANK, RATE = 16, 1e-4
STOCK = {"gpt2": 50257, "llama": 49152, "grid": 15}
SHARES = (0.2, 0.4, 0.6, 0.8)  # of the tasks by length that the four stand for


def build(kind: str, toy: bool, vocabulary: int, dtype: torch.dtype) -> torch.nn.Module:
    """A model of random weights; toy models have one layer of 32 channels."""
    torch.manual_seed(0)
    if kind == "gpt2":
        size = {"n_embd": 32, "n_layer": 1, "n_head": 2} if toy else {}
        size |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(vocab_size=vocabulary, bos_token_id=14, eos_token_id=14, **size)
        return GPT2LMHeadModel._from_config(config, dtype=dtype, attn_implementation="sdpa").eval()
    if kind == "grid":
        size = {"width": 32, "layers": 1, "heads": 2} if toy else {"width": 512, "layers": 8, "heads": 8}
        net = GridLM(GridLMConfig(**size, task_ids=["t"] * 8))
        for layer in net.layers:
            torch.nn.init.normal_(layer.attn.o_proj.weight, std=0.02)
            torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.02)
        net.task_vectors.weight.data[:] = net.task_vectors.weight.data[0].clone()  # as ours start from one vector
        return net.eval()
    size = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    if toy:
        size = {"hidden_size": 36, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 9}
    config = LlamaConfig(vocab_size=vocabulary, num_key_value_heads=3, tie_word_embeddings=True, **size)
    return LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa").eval()


def as_loaded(kind: str, net, dtype: torch.dtype) -> LoadedModel:
    return LoadedModel(net, FORMATS["grid"] if kind == "grid" else DIGITS, CPU, dtype, "", "")


def sequences(kind: str, count: int, most: int, shares=SHARES) -> list:
    """(sequence, dihedral): `count` of the tasks at these shares of the ARC-AGI-1 training tasks by length, mixed.

    Only tasks whose sequences in the digits format have at most `most` tokens.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_edition("arc-agi-1", Path(folder))
        tasks = read_challenges(Path(folder) / "arc-agi_training_challenges.json").tasks
    lengths = {task.id: max(map(len, DIGITS.training(task))) for task in tasks}
    fitting = sorted((task for task in tasks if lengths[task.id] <= most), key=lambda task: (lengths[task.id], task.id))
    rows = []
    for share in shares:
        task = fitting[int(share * len(fitting))]
        drawn = stream(as_loaded(kind, None, torch.float32), task, AdaptConfig(), task_rng(0, task.id))
        rows += [next(drawn) for _ in range(count // len(shares))]
    order = task_rng(0, "order").permutation(len(rows))
    return [rows[i] for i in order]


def growth(began: bool = False) -> int:
    """Bytes of the process's peak memory; with `began`, the peak starts anew here."""
    if began:
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def now() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def product_rate() -> float:
    """FLOP/s of a bf16 matrix product, by the same seconds."""
    a = torch.randn(1024, 1024, dtype=torch.bfloat16)
    a @ a
    began = now()
    for _ in range(8):
        a @ a
    return 8 * 2 * 1024**3 / (now() - began)


class Clock(TrainerCallback):
    def __init__(self):
        self.times = []

    def on_step_end(self, *_, **__):
        self.times.append(now())


def theirs(kind: str, net, rows, low: bool, adapter: str) -> tuple[list[float], list[float]]:
    """Seconds of the clock after each of the Trainer's steps, and their losses."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(net, adapter, is_trainable=True)

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    def padded(batch):
        made = collate([row for row, _ in batch])
        if kind == "grid":
            made["task_ids"] = made["dihedral_ids"] = torch.tensor([dihedral for _, dihedral in batch])
        return made

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder, per_device_train_batch_size=STEP, num_train_epochs=1, learning_rate=RATE, adam_beta2=0.95,
            lr_scheduler_type="constant", optim="adamw_torch_fused", bf16=low, use_cpu=True, logging_steps=1, max_grad_norm=1.0,
            report_to="none", save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        clock = Clock()
        trainer = InOrder(model, options, train_dataset=rows, data_collator=padded, callbacks=[clock])
        trainer.train()
    return clock.times, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ours(kind: str, net, rows, dtype, step: int = STEP) -> tuple[list[float], list[float]]:
    """Seconds of the clock after each of our engine's steps, and their losses."""
    model = as_loaded(kind, net, dtype)
    parts = [rows[i : i + step] for i in range(0, len(rows), step)]
    config = AdaptConfig(rank=RANK, alpha=RANK, lr=RATE, vector_lr=0.0, steps=len(parts), warmup=0, decay="constant")
    times: list[float] = []
    plan = plan_of(model, config, max(len(row) for row, _ in rows))
    with trainable(model, "t", config, 0) as groups:
        times.append(now())
        done = fit(model, lambda _: iter(parts), groups, config, plan, float("inf"), lambda *_: times.append(now()))
    return times[1:] if step > 1 else times, list(done.losses)


def child(kind: str, who: str, what: str, toy: bool, sequence_count: int = 64) -> dict:
    """One contestant's speed (`speed`), peak (`memory`) or losses in float32 (`loss`); with `task`, of one task alone.

    A task's sequences are taken one a step.
    """
    is_task = what.startswith("task")
    step = 1 if is_task else STEP
    dtype = torch.float32 if what == "loss" else torch.bfloat16
    stock = who == "peft" and what != "loss"
    net = build(kind, toy, STOCK[kind] if stock else 15, torch.float32 if kind == "grid" else dtype)
    count, most = (8, 200) if toy else (sequence_count, 1024)
    rows = sequences(kind, count, most, (0.6,) if is_task else SHARES)
    if what == "loss":
        rows = sorted(rows, key=lambda row: len(row[0]))[: 4 * STEP]
    if what.endswith("memory"):
        rows = sorted(rows, key=lambda row: -len(row[0]))[:step]
    weights = sum(p.nbytes for p in net.parameters())
    if who == "ours":
        keep_memory()
    with tempfile.TemporaryDirectory() as adapter:
        lora.inject(net, rank=RANK, alpha=RANK)
        adapter_files.save_adapter(net, adapter)
        adapters = sum(p.numel() for p in lora.adapter_parameters(net))
        lora.remove(net)

        def run():
            low = what != "loss"
            return theirs(kind, net, rows, low, adapter) if who == "peft" else ours(kind, net, rows, dtype, step)

        if what.endswith("memory"):
            with Meter() as meter:
                run()
            return {"peak": weights + meter.peak, "beyond_weights": meter.peak}
        resident = growth(began=True)
        rates = [product_rate()]
        times, losses = run()
        seconds = times[-1] - times[0]  # without the first step, in which libraries load and memory is first touched
        rates.append(product_rate())
    timed = rows if is_task else rows[step:]
    lengths = np.array([len(row) for row, _ in timed])
    width, depth = (
        (net.config.width, net.config.layers)
        if kind == "grid"
        else (net.config.hidden_size, net.config.num_hidden_layers)
    )
    matrices = sum(
        p.numel() for name, p in net.named_parameters() if p.ndim == 2 and re.search(r"(layers|\.h)\.\d", name)
    )
    flop = float((4 * matrices + 6 * adapters) * lengths.sum() + 6 * depth * width * (lengths**2.0).sum())
    if kind == "grid":  # of its last layer, inputs need keys and values alone
        inputs = np.array([int((row.labels == IGNORE).sum()) for row, _ in timed])
        share = 1 / depth - 2 * width**2 / matrices
        flop -= float((4 * matrices + 6 * adapters) * share * inputs.sum() + 6 * width * (lengths * inputs).sum())
    return {
        "seconds": seconds,
        "tokens_per_s": float(lengths.sum() / seconds),
        "utilisation": flop / seconds / float(np.mean(rates)),
        "rss": growth() - resident,
        "losses": losses,
        "tokens": int(lengths.sum()),
        "longest": int(lengths.max()),
    }


def asked(kind: str, who: str, whats: tuple[str, ...], options: list[str]) -> list[dict]:
    """`child` of one thing after the other, in a process of its own."""
    line = [sys.executable, __file__, "--child", f"{kind} {who} {','.join(whats)}", *options]
    done = subprocess.run(line, env=os.environ, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(
    json_file: Path = typer.Option(None, "--json"),
    toy: bool = False,
    shared: bool = False,
    count: int = 64,
    child_of: str = typer.Option("", "--child"),
):
    if shared:
        torch.set_num_threads(1)
    if child_of:
        kind, who, whats = child_of.split()
        print(json.dumps([child(kind, who, what, toy, count) for what in whats.split(",")]))
        return
    options = [*(["--toy"] if toy else []), *(["--shared"] if shared else []), "--count", str(count)]
    figures = {
        "shared": shared,
        "count": count,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    speedups, ratios, gaps = [], [], []
    print(f"{'model':6} {'who':5} {'tokens/s':>9} {'seconds':>8} {'peak MB':>8} {'rss MB':>7} {'utilisation':>11}")
    for kind in STOCK:
        by = {}
        for who in ("ours", "peft"):
            speed, weighed, float32 = asked(kind, who, ("speed", "memory", "loss"), options)
            by[who] = one = {**speed, **weighed, "float32": float32["losses"]}
            print(
                f"{kind:6} {who:5} {one['tokens_per_s']:9.0f} {one['seconds']:8.1f} {one['peak'] / 2**20:8.0f} "
                f"{one['rss'] / 2**20:7.0f} {one['utilisation']:11.2f}", flush=True,
            )  # fmt: skip
        figures[kind] = by
        speedups.append(by["ours"]["tokens_per_s"] / by["peft"]["tokens_per_s"])
        ratios.append(by["ours"]["peak"] / by["peft"]["peak"])
        gaps.append(max(abs(a / b - 1) for a, b in zip(by["ours"]["float32"], by["peft"]["float32"], strict=True)))
        print(f"{kind:6} speedup {speedups[-1]:.2f}, memory {ratios[-1]:.2f}, loss gap {gaps[-1]:.5f}", flush=True)
    timed, weighed = asked("gpt2", "ours", ("task", "task_memory"), options)
    figures |= {
        "speedup_vs_peft_trainer": min(speedups),
        "memory_ratio": max(ratios),
        "utilisation_135m": figures["llama"]["ours"]["utilisation"],
        "loss_gap": max(gaps),
        "gpt2_task_s": timed["seconds"],
        "gpt2_task_mb": weighed["beyond_weights"] / 1e6,
    }
    for name in (
        "speedup_vs_peft_trainer",
        "memory_ratio",
        "utilisation_135m",
        "loss_gap",
        "gpt2_task_s",
        "gpt2_task_mb",
    ):
        print(f"{name:24} {figures[name]:.4g}")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
