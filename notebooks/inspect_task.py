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
# # One task under the lens
#
# Its views, its tokens, the loss of the adaptation, the candidates of the search as a tree, and what every view thinks of
# every candidate. Paths are relative to the repository.

# %% tags=["parameters"]
edition: str = "arc-agi-1"  # or "arc-agi-2"
challenges: str = ""  # file; empty: the evaluation tasks of `edition`, written into build/EDITION where missing
solutions: str = ""  # file, to mark what is right; empty: the edition's where `challenges` is empty, else none
task: str = ""  # id; empty: the task with the fewest cells
test: int = 1  # which of the task's test inputs, counted from 1
model: str = "kaggle_dataset/model"  # folder, or OWNER/NAME on Hugging Face
preset: str = "grid"  # settings to start from: "nvarc", "architects" and "marc" are for other models
settings: str = ""  # changes to the preset, as --set of `solve` takes them, with spaces between
budget_s: float = 120.0  # seconds for the task, at most
seed: int = 0  # of views and adapters

# %%
# %matplotlib inline
import os
import sys
import time
import warnings
from pathlib import Path

os.chdir(next(path for path in (Path("."), Path("..")) if (path / "ttt_core").is_dir()))
sys.path.insert(0, os.getcwd())
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets

from ttt_core.arc import augment, draw, metric, submission, tasks as puzzle
from ttt_core.arc.editions import write_edition
from ttt_core.model.access import resolve
from ttt_core.model.load import load_model
from ttt_core.run import environment, figures
from ttt_core.run.suited import suited
from ttt_core.solve.adapt import adapted
from ttt_core.solve.task import share_of, solve_task

environment.check_parameters(In)

# %%
if not challenges:
    files = [f"build/{edition}/arc-agi_evaluation_{kind}.json" for kind in ("challenges", "solutions")]
    if not all(Path(file).is_file() for file in files):
        write_edition(edition, f"build/{edition}")
    challenges, solutions = files[0], solutions or files[1]
base = resolve(model)
options, _ = suited(preset, settings.split(), base.path)
puzzled, *others = puzzle.select_tasks(puzzle.read_challenges(challenges), str(task) or "1")
assert not others, f"task {task}: names {1 + len(others)} tasks; give the id of one"
assert 1 <= test <= len(puzzled.test), f"test {test}: {puzzled.id} has {len(puzzled.test)} test inputs, from 1 on"
truths = metric.read_solutions(solutions).get(puzzled.id) if solutions else None
chosen = None if options.model.format == "auto" else options.model.format
loaded = load_model(base.path, dtype=options.model.dtype, format=chosen)
print(f"{puzzled.id}: {len(puzzled.train)} demonstrations, {len(puzzled.test)} test inputs; {loaded.format.name}")

# %% [markdown]
# ## Views: the same puzzle turned, mirrored, recoloured
# `d` is the dihedral, `c` what the colours 0 to 9 become.

# %%
seen = augment.draw_views(puzzled, options.decode.views, augment.task_rng(seed, puzzled.id, "views"))
figures.views(puzzled, seen, test - 1)

# %% [markdown]
# ## Tokens: what the model reads
# The first training sequence, then the query that the answer continues.

# %%
for sequence in (loaded.format.training(puzzled, options.adapt.targets)[0], loaded.format.query(puzzled, test - 1)):
    print(f"{len(sequence)} tokens", "".join(loaded.format.symbols[i] for i in sequence.ids), sep="\n", end="\n\n")

# %% [markdown]
# ## Adaptation: nats per output token, step by step

# %%
rng, end = augment.task_rng(seed, puzzled.id, "adapt"), time.monotonic() + budget_s / 2
with adapted(loaded, puzzled, options.adapt, rng, share_of(end, options.adapt.time_share)) as adaptation:
    print(f"{adaptation.steps} steps{', rolled back' if adaptation.rolled_back else ''}")
figures.curve(adaptation.losses, "loss, nats a token")

# %% [markdown]
# ## Search: the candidates as a tree
# A fork is the cell at which candidates part; squares show the colour that each branch puts there, a white one the end of a row or grid.

# %%
result = solve_task(loaded, puzzled, options, seed=seed, deadline=time.monotonic() + budget_s / 2)
candidates, truth = result.candidates[test - 1], truths[test - 1] if truths else None
print(f"candidates: {len(candidates)}", *(f"{stage}: {s:.1f} s" for stage, s in result.seconds.items()), sep="\n")
figures.search_tree(candidates, loaded.format, truth)

# %% [markdown]
# ## Every candidate under every view
# Log-probabilities; a dot marks the views whose own search found the candidate, a dash those that had no time for it. Below, the most probable one as the views show it.

# %%
figures.candidates_by_view(candidates, result.views)

# %%
figures.best_seen(candidates, seen)

# %% [markdown]
# ## The two attempts

# %%
answers = submission.build(
    puzzle.Challenges((puzzled,), {}, {puzzled.id: len(puzzled.test)}), {puzzled.id: result.attempts}
)
draw.draw_tasks([puzzled], answers, {puzzled.id: truths} if truths else None)
