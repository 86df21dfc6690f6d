"""The options of a pretraining, which of them a resumed one may change, and the rate over time. Not here: what they do."""

import math
from dataclasses import dataclass

import torch

from ttt_core.errors import InputError
from ttt_core.model.attention import has_varlen
from ttt_core.model.sources import COLOR_RULES


@dataclass(frozen=True)
class PretrainConfig:
    """Options of one training; on resuming, only those named in MAY_CHANGE may differ."""

    budget_s: float  # seconds of training in all, earlier pieces, reading and saving included
    width: int = 256  # width, layers and heads are the base's where there is one
    layers: int = 4
    heads: int = 4
    seed: int = 0
    batch_tokens: int = 4096  # padded tokens of a step, or those of a packed row, in each process
    max_tokens: int = 512  # longer pairs are left out
    muon_lr: float = 0.02
    lr: float = 2e-3  # AdamW: embeddings, norms, head
    vector_lr: float = 1e-2  # AdamW: task and dihedral vectors
    warmup_steps: int = 100
    flat_share: float = 0.4  # of the budget, before the rate falls to zero
    clip_norm: float = 1.0
    dropout: float = 0.0
    ema: float = 0.0  # decay a step of averaged weights, which are then the model; 0: none
    colors: str = "free"  # see sources.permutable
    original_views: int = 1  # of each pair that is not generated, in an epoch
    scale_share: float = 0.0  # of the pairs, enlarged 2 or 3 times
    translate_share: float = 0.0  # of the pairs of one size, moved by a border of colour 0
    packed: bool | None = None  # rows of sequences end to end, not padded batches; None: where has_varlen
    compile: bool = False  # torch.compile; takes a minute to begin
    save_every_s: float = 120.0
    piece_s: float = math.inf  # seconds of this call; the next one goes on
    max_steps: int = 0  # 0: budget_s ends it; else so many steps do, which the schedule counts, and budget_s is ignored

    def __post_init__(self):
        if not 0 < self.budget_s < math.inf or not self.piece_s > 0:
            raise InputError(f"budget {self.budget_s} s, piece {self.piece_s} s: give a positive number of seconds")
        if self.colors not in COLOR_RULES:
            raise InputError(f"colors {self.colors}: choose one of {', '.join(COLOR_RULES)}")
        for name in ("width", "layers", "heads", "original_views", "batch_tokens", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: give --{name.replace('_', '-')} 1 or more")
        for name in ("muon_lr", "lr", "vector_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)}: give --{name.replace('_', '-')} a positive number")
        head, rest = divmod(self.width, self.heads)
        if rest or head % 2 or head < 4:  # rows and columns turn a pair of channels each, see gridlm.axis_dims
            raise InputError(
                f"width {self.width}, heads {self.heads}: a head's part of the width must be even and at least 4; "
                f"give --width {2 * self.heads * max(2, round(head / 2))} or another --heads"
            )
        for name in ("scale_share", "translate_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}: give --{name.replace('_', '-')} a share in [0, 1]")
        if not self.save_every_s >= 0:
            raise InputError(f"save_every_s {self.save_every_s}: give --save-every-s a number of seconds")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: give --seed a number from 0 to {2**32 - 1}")
        if not (0 <= self.ema < 1 and 0 <= self.dropout < 1):
            raise InputError(f"ema {self.ema}, dropout {self.dropout}: give values in [0, 1)")

    def is_packed(self, device: torch.device) -> bool:
        return has_varlen(device) if self.packed is None else self.packed


MAY_CHANGE = {"budget_s", "save_every_s", "piece_s", "max_steps", "compile"}


def schedule(config: PretrainConfig, step: int, share: float) -> float:
    """Factor of the peak rates: warm-up by steps, then flat, then linear to zero at share 1."""
    return min(1.0, (step + 1) / config.warmup_steps) * min(1.0, (1 - share) / (1 - config.flat_share))
