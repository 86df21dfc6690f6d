"""The walls: who may import whom, what needs no torch, and that the notebook's two files say the same."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["arc", "model", "solve", "run"]
FILES = sorted((ROOT / "ttt_core").glob("*/*.py"))


def imported(source: str) -> set[str]:
    """Every module named in an import statement, at any depth of the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def upward(room: str, source: str) -> list[str]:
    """Imports of rooms below `room` in the list: the forbidden direction."""
    later = tuple(f"ttt_core.{name}" for name in ROOMS[ROOMS.index(room) + 1 :])
    return [name for name in imported(source) if name.startswith(later)] if later else []


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_go_up_the_list_only(path):
    assert upward(path.parent.name, path.read_text()) == []


def test_the_import_check_sees_a_forbidden_import():
    assert upward("arc", "def f():\n    from ttt_core.solve import vote") != []


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "arc"], ids=lambda p: p.name)
def test_arc_never_imports_torch(path):
    assert not any(name.split(".")[0] == "torch" for name in imported(path.read_text()))


def test_the_parent_of_a_run_does_not_import_torch():
    code = "import ttt_core.run.run, ttt_core.__main__, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_notebook_and_source_are_in_step():
    for source in sorted((ROOT / "notebooks").glob("*.py")):
        notebook = json.loads(source.with_suffix(".ipynb").read_text())
        cells = [(c["cell_type"], "".join(c["source"])) for c in notebook["cells"]]
        assert cells == [(c.cell_type, c.source) for c in jupytext.read(source).cells]
        assert not any(c.get("outputs") for c in notebook["cells"])
