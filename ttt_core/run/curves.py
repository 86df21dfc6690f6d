"""train_log.png: a training for people. Loss and held-out loss over tokens, then speed and how much of the machine was used.

In: a model folder with the `train_log.jsonl` that pretraining leaves. Out: one picture beside it. No torch.
"""

import json
from pathlib import Path

from ttt_core.errors import InputError

LOG, PICTURE = "train_log.jsonl", "train_log.png"
MEASURES = {"utilisation": "#0074D9", "padding_share": "#FF851B", "data_wait_share": "#870C25"}


def write_curves(model_dir: str | Path) -> Path:
    """Draw the training log of `model_dir`; returns the picture's path. InputError where the log is no such log."""
    from matplotlib.figure import Figure

    lines = _read(Path(model_dir) / LOG)
    figure = Figure(figsize=(12, 4), facecolor="white", layout="constrained")
    losses, use = figure.subplots(1, 2)
    tokens = [line["tokens"] / 1e6 for line in lines]
    losses.plot(tokens, [line["loss"] for line in lines], "o-", label="training", color="#0074D9")
    if any(line.get("held_out_nll") is not None for line in lines):
        losses.plot(tokens, [line.get("held_out_nll") for line in lines], "o-", label="held-out pairs", color="#FF4136")
    losses.set(xlabel="million tokens", ylabel="nats per output token", yscale="log", title="Loss")
    for name in ("loss", "held_out_nll"):
        if lines[-1].get(name):
            losses.annotate(f"  {lines[-1][name]:.3g}", (tokens[-1], lines[-1][name]), va="center", fontsize=9)
    for which in (losses.yaxis.set_major_formatter, losses.yaxis.set_minor_formatter):
        which(lambda nats, _: f"{nats:g}")
    losses.legend(frameon=False)
    for (name, color), style in zip(MEASURES.items(), ("o-", "o-", "o:"), strict=True):  # the last two often coincide
        use.plot(tokens, [line.get(name) for line in lines], style, label=name.replace("_", " "), color=color)
    told = f"{lines[-1]['tokens'] / lines[-1]['seconds']:,.0f} tokens/s, {lines[-1]['flop']:.2e} FLOP in all"
    use.set(xlabel="million tokens", ylabel="share", ylim=(0, 1), title=told)
    use.legend(frameon=False)
    for ax in (losses, use):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(model_dir) / PICTURE, dpi=100)
    return Path(model_dir) / PICTURE


def _read(log: Path) -> list[dict]:
    try:
        told = log.read_text().splitlines(keepends=True)
        lines = [json.loads(line) for line in told if line.endswith("\n")]  # a kill may have cut the last one
        complete = lines and all(line["tokens"] >= 0 and line["seconds"] > 0 and line["loss"] >= 0 for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"training log {log}: {error!r}; give a folder that `pretrain` wrote") from None
    if not complete:
        raise InputError(f"training log {log}: holds no line yet; wait for the first save")
    return lines
