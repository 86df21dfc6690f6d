"""The real solver with one damage a task, named by the task's id; everything else as in any run."""

import math
import os
from pathlib import Path

from ttt_core.config import from_dict, to_dict


def load(model, device, config):
    import torch

    from ttt_core.model import adapter_files
    from ttt_core.model.load import load_model
    from ttt_core.solve.task import solve_task

    loaded, adapters = load_model(model, device=device, dtype="float32"), Path(os.environ["ADAPTERS"])

    def solve(tasks, config, seed, deadline, beat):
        [task] = tasks
        damage = task.id.partition("-")[2]
        if damage == "loss":
            options = to_dict(config)
            options["adapt"] |= {"lr": 1e30, "vector_lr": 1e30}
            config = from_dict(options)
        if damage == "logits":
            with torch.no_grad():
                for weights in loaded.net.get_output_embeddings().parameters():
                    weights.fill_(math.inf)

        def beat_and_damage(stage: str, so_far=()) -> None:  # the adapted model is what searches
            beat(stage, so_far)
            if stage == "decode" and damage and (adapters / damage).is_dir():
                adapter_files.load_adapter(loaded.net, adapters / damage)

        return [solve_task(loaded, task, config, seed=seed, deadline=deadline, beat=beat_and_damage)]

    return solve
