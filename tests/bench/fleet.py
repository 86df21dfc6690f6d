"""The scheduler on fleets that are not at hand: `python tests/bench/fleet.py --json FILE`.

A simulated clock around the schedule that runs use (`ttt_core/run/schedule.py`), for 240 and 100,000 tasks on 1 to 1,024
devices that fail. A task's cost is the model's for a real ARC-AGI-1 evaluation task; what it takes is its cost times
a ratio measured in a run (`--run RUN_DIR`, or the ratios of one below). Printed: makespan over the bound
max(longest task, total / devices), seconds of work lost to failures, scheduler time a task.

`makespan_over_bound`: 240 tasks on 4 devices without failures. `scheduler_ms_per_task`: 100,000 tasks, the slowest fleet.
"""

import argparse
import heapq
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import read_challenges
from ttt_core.config import preset
from ttt_core.run import receipt, store
from ttt_core.run.passes import wider
from ttt_core.run.schedule import Schedule, cost

# Seconds per million tokens of cost, of 14 random evaluation tasks (20 steps, 4 views) on one busy CPU core.
RATIOS = [451, 243, 251, 252, 190, 261, 215, 322, 281, 573, 212, 324, 189, 189]
FLEETS = [(n, devices) for n in (240, 100_000) for devices in (1, 4, 64, 1024)]
START_S = 60.0  # of a worker, after a failure


class Stopwatch:
    """Adds up the seconds spent inside `with`."""

    seconds = 0.0

    def __enter__(self):
        self.began = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self.began


def measured_ratios(run_dir: Path, config) -> list[float]:
    """Seconds per million tokens of every task with a whole first pass in a run folder."""
    challenges = read_challenges(receipt.read(run_dir)["challenges"])
    records, _ = store.read_records(run_dir, challenges.n_test)
    return [
        records[task.id].notes["used_s"] / cost(task, config) * 1e6
        for task in challenges.tasks
        if task.id in records and records[task.id].status == "ok" and records[task.id].notes["passes"] == 1
    ]


def simulate(costs: np.ndarray, needs: np.ndarray, devices: int, failure_rate: float, rng) -> dict:
    """One run. costs: tokens; needs: seconds; failure_rate: of a device, per second of work: the task is lost and tried anew."""
    names = [f"t{i}" for i in range(len(costs))]
    need = dict(zip(names, needs.tolist(), strict=True))
    schedule = Schedule(dict(zip(names, costs.tolist(), strict=True)), dict.fromkeys(names, 1.0), least_s=20.0)
    budget_s = 100 * (needs.sum() / devices + needs.max())  # ample: what is measured is the order, not the deadline
    clock = Stopwatch()
    with clock:
        schedule.add(names)
    free, running, events = list(range(devices)), {}, []  # events: (when, device), of turns and of starts
    now, lost, done = 0.0, 0.0, 0
    while True:
        with clock:
            turns = []
            while free and schedule.has_turn(budget_s - now):
                device = free.pop()
                turns.append((device, schedule.turn(device, now, budget_s - now, devices)))
        for device, turn in turns:
            takes = min(need[turn.task_id], turn.seconds)
            fails_after = rng.exponential(1 / failure_rate) if failure_rate else np.inf
            running[device] = (min(takes, fails_after), fails_after < takes)
            heapq.heappush(events, (now + running[device][0], device))
        if not events:
            break
        now, device = heapq.heappop(events)
        if device not in running:  # its new worker is ready
            free.append(device)
            continue
        took, failed = running.pop(device)
        with clock:
            turn = schedule.ended(device, took, measured=not failed)
            if failed:
                schedule.retry(turn, device)
        if failed:
            lost += took
            heapq.heappush(events, (now + START_S, device))
        else:
            done, ended_at = done + 1, now
            free.append(device)
    bound = max(needs.max(), needs.sum() / devices)
    return {
        "tasks": len(costs),
        "devices": devices,
        "failures_per_hour": 3600 * failure_rate,
        "done": done,
        "over_bound": ended_at / bound - 1,
        "lost_share": lost / needs.sum(),
        "scheduler_ms_per_task": 1e3 * clock.seconds / len(costs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder whose measured times are used")
    parser.add_argument("--most-tasks", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config, rng = preset("grid"), np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_edition("arc-agi-1", Path(folder))
        tasks = read_challenges(Path(folder) / "arc-agi_evaluation_challenges.json").tasks
    known = np.array([cost(task, config) for task in tasks])
    assert all(cost(task, wider(config)) > one for task, one in zip(tasks[:5], known[:5], strict=True))
    ratios = np.array(measured_ratios(options.run, config) if options.run else RATIOS)
    rows = []
    for n, devices in FLEETS:
        if n <= options.most_tasks:
            costs = rng.choice(known, n, replace=n > len(known))
            needs = costs * rng.choice(ratios, n) / 1e6
            rows += [simulate(costs, needs, devices, rate / 3600, rng) for rate in (0.0, 1.0)]
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {len(ratios)} measured ratios"
    )
    print("  tasks devices failures/h     done  over bound  work lost  scheduler ms/task")
    for row in rows:
        print("{tasks:7} {devices:7} {failures_per_hour:10.1f} {done:8} {over_bound:11.2%} {lost_share:10.2%} "
              "{scheduler_ms_per_task:18.4f}".format(**row))  # fmt: skip
    figures = {
        "makespan_over_bound": next(r["over_bound"] for r in rows if (r["tasks"], r["devices"]) == (240, 4)),
        "scheduler_ms_per_task": max(r["scheduler_ms_per_task"] for r in rows if r["tasks"] == rows[-1]["tasks"]),
        "rows": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
