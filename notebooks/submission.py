# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ARC test-time training: from challenges to `submission.json`
#
# Every task gets a model adapted to its own demonstrations. A valid submission stands from the first seconds.

# %% tags=["parameters"]
challenges: str = "build/data/arc-agi_evaluation_challenges.json"  # tasks without answers
solutions: str = ""  # their answers, for a score at the end; empty where there are none
model: str = "kaggle_dataset/model"  # base model directory
run_dir: str = "build/run"  # records, submission.json, figure
budget_s: float = 300.0  # seconds from the first cell to the end
tasks: str = ""  # "10": the ten with the fewest cells; ids or @FILE; empty: all
seed: int = 0  # of views and adapters

# %%
# The fallback: a valid file before anything else can go wrong.
import time

started = time.monotonic()
from ttt_core.run.run import run, write_fallback

print(write_fallback(challenges, run_dir))

# %%
# Adapt, search, score and vote, task by task.
from ttt_core.config import preset

summary = run(
    challenges, model, run_dir, config=preset("grid"), budget_s=budget_s, tasks=str(tasks) or None, seed=seed, started=started
)
print(f"{summary.ok} ok, {summary.failed} failed, {summary.skipped} skipped in {summary.seconds:.0f} s")

# %%
# What was solved. Green frames are right, when solutions are at hand.
# %matplotlib inline
from ttt_core.arc import draw, metric, submission, tasks as puzzle

answers = submission.read(f"{run_dir}/submission.json")
truth = metric.read_solutions(solutions) if solutions else None
chosen = puzzle.select_tasks(puzzle.read_challenges(challenges), str(tasks) or None)
figure = draw.draw_tasks(chosen, answers, truth)
figure.savefig(f"{run_dir}/tasks.png", dpi=80)
figure

# %%
# The score, where solutions are at hand: on the selected tasks alone, which `tasks` names.
if solutions:
    print(metric.format_score(metric.score(answers, truth, tasks=[task.id for task in chosen])))
