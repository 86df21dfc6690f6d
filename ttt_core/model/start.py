"""The net that a pretraining begins with: fresh, or a base that may know nothing of what is evaluated.

Not here: the leakage guard (`leakage.py`); what a resumed training puts back (`checkpoint.py`).
"""

from pathlib import Path

import torch

from ttt_core.arc.tasks import read_challenges
from ttt_core.errors import ModelError
from ttt_core.model.corpus import Corpus
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.leakage import refuse_base
from ttt_core.model.load import check_directory, load_model
from ttt_core.model.pretrain_config import PretrainConfig


def make_net(
    corpus: Corpus,
    config: PretrainConfig,
    base: Path | None,
    guard: Path | None,
    data: Path | None = None,
    transductive: Path | None = None,
    exclude: frozenset[str] = frozenset(),
) -> GridLM:
    """A fresh GridLM for the corpus's tasks, or the base with the vectors of the tasks it knows and its mean for others.

    data: where tasks that the base has learnt may be found, to be compared with those of `guard`; where that is
    `transductive` itself, the base may have been shown any of its tasks, else those that the corpus shows. exclude: tasks
    by which it may know others' content, with a warning.
    """
    learnt, shown = set(corpus.task_ids) - corpus.shown, set(corpus.task_ids) & corpus.shown
    if base is None:
        shape = {"width": config.width, "layers": config.layers, "heads": config.heads}
    else:
        if (kind := check_directory(base).get("model_type")) != GridLMConfig.model_type:
            raise ModelError(f"base {base}: is a {kind} model; give the folder of a GridLM")
        start = load_model(base, device="cpu", dtype="float32", format="grid").net
        known = list(start.config.task_ids)
        if guard:
            is_own = transductive and transductive.resolve() == guard.resolve()
            allowed = set(read_challenges(guard).n_test) if is_own else corpus.shown
            seen = {*known, *start.config.shown_ids} - (set(start.config.shown_ids) & allowed)
            with_answers = frozenset(start.config.learnt_ids)
            refuse_base(seen | with_answers, guard, bool(corpus.shown), data, with_answers, exclude)
        learnt |= set(start.config.learnt_ids)
        shown |= set(start.config.shown_ids)
        shape = {name: getattr(start.config, name) for name in ("width", "layers", "heads", "hidden")}
    ids = {"task_ids": corpus.task_ids, "shown_ids": sorted(shown), "learnt_ids": sorted(learnt)}
    net = GridLM(GridLMConfig(**shape, **ids, dropout=config.dropout))
    if base is not None:
        state, vectors = start.state_dict(), start.task_vectors.weight.detach()
        index, mean = {task_id: i for i, task_id in enumerate(known)}, vectors.mean(dim=0)
        rows = [vectors[index[t]] if t in index else mean for t in corpus.task_ids]
        net.load_state_dict({**state, "task_vectors.weight": torch.stack(rows)})
    return net
