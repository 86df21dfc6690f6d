"""Looks at concepts: `python tests/bench/concepts/check.py MODULE [NAME]` prints how often each gives pairs, and with NAME some of them."""

import importlib
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3]))  # the repository

from tests.bench.concepts import pairs_of
from ttt_core.arc.augment import task_rng


def main(argv):
    module = importlib.import_module(f"tests.bench.concepts.{argv[0]}")
    for concept in module.CONCEPTS:
        if argv[1:] and concept.__name__ not in argv[1:]:
            continue
        began, tasks, cells = time.monotonic(), [], []
        for number in range(30 if not argv[1:] else 2):
            tasks.append(pairs_of(concept, task_rng(0, f"{concept.__name__} {number}")))
        seconds = (time.monotonic() - began) / len(tasks)
        good = [pairs for pairs in tasks if pairs]
        cells = [a.size + b.size for pairs in good for a, b in pairs]
        print(
            f"{concept.__name__:24} {len(good)}/{len(tasks)} tasks, {np.mean(cells or [0]):.0f} cells a pair, {1000 * seconds:.0f} ms a task"
        )
        if argv[1:]:
            for pairs in good:
                for a, b in pairs[:3]:
                    height = max(len(a), len(b))
                    for r in range(height):
                        left = "".join("." if x == 0 else str(x) for x in a[r]) if r < len(a) else ""
                        right = "".join("." if x == 0 else str(x) for x in b[r]) if r < len(b) else ""
                        print(left.ljust(a.shape[1] + 4) + right)
                    print()


if __name__ == "__main__":
    main(sys.argv[1:])
