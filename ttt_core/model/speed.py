"""How much of the machine a training uses: FLOP of a batch against the rate of a plain matrix product.

FLOP are those the model needs for real tokens, forward and backward: 6 a weight and token, 12 a layer, channel and
pair of tokens of one sequence for attention (Chowdhery et al. 2022, appendix B), in the last layer of answers alone.
Padding and the optimiser's own products count as nothing, so they lower the utilisation.
"""

import ctypes
import sys
import time

import numpy as np
import torch


def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 8) -> float:
    """FLOP/s of the best of `repeats` products in `dtype`, that of the training, of sizes that suit the device."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def training_flop(config, lengths: np.ndarray, answers: np.ndarray) -> float:
    """FLOP of a training step of a GridLM of this config on sequences of so many tokens, so many of them answers.

    Of the last layer inputs need keys and values alone.
    """
    width, layers = config.width, config.layers
    lengths, answers = lengths.astype(np.float64), answers.astype(np.float64)
    rest = 2 * width**2 + 3 * width * config.hidden  # weights of a layer but those of keys and values
    weights = layers * (rest + 2 * width**2) * lengths.sum() - rest * (lengths - answers).sum()
    return float(6 * weights + 12 * width * (((layers - 1) * lengths + answers) * lengths).sum())


def keep_memory() -> None:
    """Make glibc keep freed memory: a step on CPU else spends up to a fifth of its time in page faults of tensors made anew.

    Does nothing without glibc. The numbers are M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX and M_ARENA_MAX of malloc.h.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for option, value in ((-1, -1), (-2, 2**28), (-4, 0), (-8, 1)) if mallopt else ():
        mallopt(option, value)
