"""A folder with challenges, a model folder and the stand-in solver, and a run of it in this process."""

import json
import os
from pathlib import Path

import pytest

from ttt_core.arc import submission
from ttt_core.arc.tasks import read_challenges
from ttt_core.config import Config
from ttt_core.run.run import run
from ttt_core.run.supervise import Limits

HERE = Path(__file__).parent
IDS = ["a", "b", "c", "d"]


class Place:
    """root: a temporary folder. Its runs are in root/NAME, the stand-in's notes in root/notes."""

    def __init__(self, root: Path, monkeypatch):
        self.root, self.monkeypatch = root, monkeypatch
        self.write({task_id: self.task(i) for i, task_id in enumerate(IDS)})
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text("{}")
        monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parents[1]}")
        monkeypatch.setenv("NOTES", str(root / "notes"))

    @staticmethod
    def task(i: int) -> dict:
        pair = {"input": [[i, 1]], "output": [[1, i]]}
        return {"train": [pair] * (i + 1), "test": [{"input": [[i, 2]]}] * (1 + i // 2)}

    def write(self, entries: dict) -> None:
        (self.root / "challenges.json").write_text(json.dumps(entries))

    def run(self, acts=None, name="run", **options):
        """One run of the stand-in; `acts` says what goes wrong, by task."""
        self.monkeypatch.setenv("ACTS", json.dumps(acts or {}))
        limits = Limits(task_s=0.1, grace_s=0.1, pause_s=0.0)
        options = {
            "config": Config(),
            "budget_s": 60.0,
            "progress": False,
            "limits": limits,
            "devices": "cpu",
        } | options
        options = {"solver": "standin:load", "model": self.root / "model"} | options
        return run(self.root / "challenges.json", options.pop("model"), self.root / name, **options)

    def answered(self, name="run") -> set[str]:
        """The tasks with an answer in the submission, which must be valid."""
        told = submission.read(self.root / name / "submission.json")
        submission.check(told, read_challenges(self.root / "challenges.json"))
        return {task_id for task_id, answers in told.items() if answers[0]["attempt_1"] != submission.PLACEHOLDER}

    def records(self, name="run") -> dict:
        """What each record holds but for times and devices."""
        files = sorted((self.root / name / "tasks").glob("*.json"))
        told = {file.stem: json.loads(file.read_text())["result"] for file in files}
        for record in told.values():
            record.pop("seconds"), record.pop("peak_gib")
            record["notes"] = {k: v for k, v in record["notes"].items() if k in ("passes", "smaller", "second", "lost")}
        return told

    def receipt(self, name="run") -> dict:
        return json.loads((self.root / name / "run.json").read_text())

    def turns(self) -> list[str]:
        """Ids of the tasks that were begun, in order."""
        lines = (self.root / "notes").read_text().splitlines() if (self.root / "notes").exists() else []
        return [line.split()[0] for line in lines if not line.startswith("start")]

    def starts(self) -> list[int]:
        lines = (self.root / "notes").read_text().splitlines() if (self.root / "notes").exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith("start")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)
