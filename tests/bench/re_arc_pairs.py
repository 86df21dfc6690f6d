"""Pairs of the ARC-AGI-1 training tasks by RE-ARC's generators: `python tests/bench/re_arc_pairs.py --package build/rg --out FILE`.

The generators are taken from the package reasoning-gym, of which nothing else is loaded, so its own needs are not met:
`pip install --no-deps --target build/rg reasoning-gym==0.1.25`. Difficulties are 0 to 1; a pair is kept where the package's verifier
of the task agrees. Writes a gzipped JSON file {id: [pair, ...]} for `pretrain --extra`; equal arguments write nearly
equal files: what takes longer than a second is given up.
"""

import argparse
import gzip
import importlib
import json
import random
import signal
import sys
import time
import types
from pathlib import Path

SECONDS = 1.0  # that a pair may take
PATIENCE = 3  # as many failures as pairs asked for: then a task has what it has


class Late(Exception):
    pass


def late(*_):
    raise Late


def functions(package: Path, prefix: str, module: str) -> dict:
    """The functions `prefix`ID of the package's module, by ID."""
    for name, folder in (("reasoning_gym", "reasoning_gym"), ("reasoning_gym.arc", "reasoning_gym/arc")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(package / folder)]
    found = vars(importlib.import_module(f"reasoning_gym.arc.rearc_utils.{module}"))
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def pairs_of(task_id: str, generate, verify, count: int) -> list[dict]:
    """At most `count` different pairs."""
    made, failures = {}, 0
    rng = random.Random(task_id)
    while len(made) < count and failures < PATIENCE * count:
        try:
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            pair = generate(rng, 0, 1)
            a, b = pair["input"], pair["output"]
            is_kept = a != b and verify(a) == b and (a, b) not in made and max(map(len, (a, b, a[0], b[0]))) <= 30
        except Exception:  # the generators raise all kinds where their draw does not fit
            is_kept = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if is_kept:
            made[a, b] = {"input": a, "output": b}
        failures += not is_kept
    return list(made.values())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--package", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="pairs of each task")
    parser.add_argument("--tasks", help="id,id: of these tasks alone")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGALRM, late)
    generators = functions(options.package, "generate_", "generators")
    verifiers = functions(options.package, "verify_", "verifiers")
    made, began = {}, time.monotonic()
    for task_id in options.tasks.split(",") if options.tasks else sorted(generators):
        made[task_id] = pairs_of(task_id, generators[task_id], verifiers[task_id], options.count)
        print(f"{task_id}: {len(made[task_id])} pairs, {time.monotonic() - began:.0f} s", file=sys.stderr)
    with gzip.open(options.out, "wt") as file:
        json.dump(made, file, separators=(",", ":"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
