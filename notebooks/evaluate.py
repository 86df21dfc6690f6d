# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How good is it? A public evaluation set, solved and scored
#
# The run is the submission's own; answers are read only after it has ended. Paths are relative to the repository.

# %% tags=["parameters"]
edition: str = "arc-agi-1"  # or "arc-agi-2"; its evaluation tasks are solved
data: str = ""  # folder of the edition's files, written where they are missing; empty: build/EDITION
model: str = "kaggle_dataset/model"  # folder, or OWNER/NAME on Hugging Face
run_dir: str = "build/evaluation"  # records; a run with the same settings is continued
budget_s: float = 300.0  # seconds for all tasks
tasks: str = "10"  # "10": the ten with the fewest cells; ids or @FILE; empty: all
preset: str = "grid"  # settings to start from: "nvarc", "architects" and "marc" are for other models
settings: str = ""  # changes to the preset, as --set of `solve` takes them, with spaces between
seed: int = 0  # of views and adapters

# %%
# %matplotlib inline
import os
import sys
import warnings
from pathlib import Path

os.chdir(next(path for path in (Path("."), Path("..")) if (path / "ttt_core").is_dir()))
sys.path.insert(0, os.getcwd())
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets

from IPython.display import Markdown, display

from ttt_core.arc import draw, metric, submission, tasks as puzzle
from ttt_core.arc.editions import write_edition
from ttt_core.model.access import resolve
from ttt_core.run import environment, evaluation, figures
from ttt_core.run.run import run
from ttt_core.run.suited import suited

environment.check_parameters(In)

# %% [markdown]
# ## Leakage check
# A task counts only where the model has learnt neither the task itself nor one that shows what it asks.

# %%
data = data or f"build/{edition}"
challenges, solutions = (f"{data}/arc-agi_evaluation_{kind}.json" for kind in ("challenges", "solutions"))
if not Path(challenges).is_file():
    write_edition(edition, data)
base = resolve(model)
chosen = {task.id: task for task in puzzle.select_tasks(puzzle.read_challenges(challenges), str(tasks) or None)}
known = evaluation.known_tasks(base.path, challenges, data)
for task_id in (known or {}).keys() & chosen.keys():
    print(f"left out of the score: {task_id}, which {base.path} has learnt by task {known[task_id]}")
counted = [task_id for task_id in chosen if task_id not in (known or {})]
assert counted, f"leak: {base.path} has learnt all of these tasks; evaluate another model, or on other tasks"
leak = "no leak" if known is not None else "leaks unknown, for a text model does not say what it has learnt"
print(f"{leak}: {len(counted)} tasks of {challenges} count")

# %% [markdown]
# ## The run

# %%
summary = run(
    challenges,
    base.path,
    run_dir,
    config=suited(preset, settings.split(), base.path)[0],
    budget_s=budget_s,
    tasks=str(tasks) or None,
    seed=seed,
    model_note=base.note,
)
print(
    f"{summary.ok} ok, {summary.failed} failed, {summary.skipped} skipped in {summary.seconds:.0f} s {summary.stopped}"
)

# %% [markdown]
# ## The score, and what the selection lost
# The oracle counts an output as found when any candidate is right, whichever two were chosen.

# %%
truths, answers = metric.read_solutions(solutions), submission.read(summary.submission)
print(metric.format_score(metric.score(answers, truths, tasks=counted)))
truths = {task_id: truths[task_id] for task_id in counted}
rows = evaluation.outcomes(run_dir, truths)
display(Markdown(evaluation.summary(rows)))

# %% [markdown]
# ## Task by task

# %%
display(Markdown(evaluation.table(rows)))

# %% [markdown]
# ## Near misses
# Unsolved outputs that were answered in the right shape; wrong cells are red in the last column.

# %%
if missed := evaluation.near_misses(rows):
    display(figures.near_misses(missed, chosen, truths))
else:
    print("all outputs are solved" if all(row.solved for row in rows) else "none that was answered in the right shape")

# %% [markdown]
# ## Attempts, the first 20 tasks of those that were reached

# %%
reached = [task for task in chosen.values() if summary.outcomes[task.id]["status"] == "ok"]
draw.draw_tasks(reached or list(chosen.values()), answers, truths, max_tasks=20)
