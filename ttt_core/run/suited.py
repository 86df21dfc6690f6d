"""Whether settings and model go together: "grid" holds what GridLM bears and no other model, the other presets speak to text models.

Not here: the presets (`config.py`), whether a model can be loaded (`model/load.py`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ttt_core.config import Config, preset
from ttt_core.errors import InputError


def suited(name: str, changes: Sequence[str], model: Path, strict: bool = True) -> tuple[Config, str]:
    """The preset `name` with `changes`, and "". Where it is for another kind of model than `model`, a folder, InputError.

    Unless strict: then the preset for this kind as it stands, and a note on it, since a run that nobody watches should go on.
    """
    config = preset(name, changes)
    try:
        kind = json.loads((model / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        return config, ""  # what loads the model says what is wrong with it
    is_grid = kind in ("gridlm", None)  # where it is not told, loading says so
    if is_grid and config.model.format not in ("auto", "grid"):
        fault, other = f"preset {name}: is for text models, {model} is a GridLM; take preset grid", "grid"
    elif not is_grid and name == "grid":
        fault, other = f"model {model}: is a {kind} and no GridLM; take its preset, such as marc", "marc"
    else:
        return config, ""
    if strict:
        raise InputError(fault)
    return preset(other), f"{fault}, which is done"
