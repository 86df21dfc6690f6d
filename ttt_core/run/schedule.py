"""In which order tasks are solved, and what each is expected to cost. Pure functions of tasks; no clock, no device.

Smallest first: a budget may not suffice for all, small tasks are the ones solved most often and in least time, so
this order leaves the most tasks solved at any moment. (Longest first, which shortens the end of a run on many
devices, gains nothing on one.)
"""

from collections.abc import Container, Iterable

from ttt_core.arc.tasks import Task, cells

FIXED_COST = 500  # in cells: an optimiser step holds a set number of tokens, so adapting costs small tasks as much


def cost(task: Task) -> float:
    """Expected time of a task in arbitrary units (cells): a part that all tasks share, and one that grows with it."""
    return FIXED_COST + cells(task)


def order(tasks: Iterable[Task], failed_before: Container[str] = ()) -> tuple[Task, ...]:
    """`tasks` cheapest first, ties by id; those that already failed once come after all that had no turn yet."""
    return tuple(sorted(tasks, key=lambda task: (task.id in failed_before, cost(task), task.id)))
