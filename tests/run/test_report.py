"""report.html: what is in it is what the run did, it stands alone, and a browser shows it without complaint."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttt_core.arc.draw import COLORS
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.config import Config
from ttt_core.errors import InputError
from ttt_core.run import store
from ttt_core.run.evaluation import outcomes
from ttt_core.run.report import write_report
from ttt_core.run.run import run

RIGHT, WRONG = np.array([[1, 2], [3, 4]], np.uint8), np.array([[0, 9]], np.uint8)


@pytest.fixture
def finished(tmp_path):
    """A run folder: task a answered rightly, b wrongly, c without time."""
    pair = {"input": [[5]], "output": [[6]]}
    challenges = {name: {"train": [pair, pair], "test": [{"input": [[7]]}]} for name in "abc"}
    (tmp_path / "challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "solutions.json").write_text(json.dumps({name: [RIGHT.tolist()] for name in "abc"}))
    (tmp_path / "model").mkdir()
    settings = {"config": Config(), "budget_s": 0.0, "progress": False}
    run(tmp_path / "challenges.json", tmp_path / "model", tmp_path / "run", **settings)
    for name, attempts in (("a", (WRONG, RIGHT)), ("b", (WRONG, WRONG + 0))):
        candidates = (Candidate(RIGHT, (-0.5, -1.5), (0,)), Candidate(WRONG, (-3.0, float("nan")), (0, 1)))
        times = {"adapt": 3.0, "decode": 0.5, "rescore": 0.25}
        notes = {"planned_s": 9.0, "used_s": 4.0, "device": f"cpu:{'ab'.index(name)}", "passes": 2}
        record = TaskResult(name, "ok", "", (attempts,), (candidates,), ("x", "y"), times, notes=notes)
        store.write_record(tmp_path / "run", record)
    run(tmp_path / "challenges.json", tmp_path / "model", tmp_path / "run", **settings)
    return tmp_path


def test_a_challenge_file_that_was_replaced_costs_no_record(finished):
    torn = finished / "run/tasks/b.json"
    torn.write_text(torn.read_text()[:-9])
    assert "b" in write_report(finished / "run").read_text() and torn.is_file()  # a report moves nothing
    told = json.loads((finished / "challenges.json").read_text())
    (finished / "challenges.json").write_text(json.dumps({"other": told["a"]}))
    for read in (write_report, lambda run_dir: outcomes(run_dir, {})):
        with pytest.raises(
            InputError, match="challenges.json: is not what .*/run was made from; name that file by --challenges"
        ):
            read(finished / "run")
    assert {path.name for path in (finished / "run/tasks").iterdir()} == {"a.json", "b.json"}


def part(html: str, task: str) -> str:
    return html.split(f'<details id="{task}">')[1].split("</details>")[0]


def test_score_states_and_probabilities_are_the_runs(finished):
    html = write_report(finished / "run", finished / "solutions.json").read_text()
    assert "1/3" in html and "2 ok" in html
    assert "1 of 1 solved" in part(html, "a") and "0 of 1 solved" in part(html, "b") and "skipped" in part(html, "c")
    assert "p = 0.37" in part(html, "a") and "1 of 2 views" in part(html, "a") and "3.8 s" in part(html, "a")
    assert part(html, "a").count('class="right"') == 2  # the attempt and the candidate
    assert "A green frame is right" in html and "2 passes" in part(html, "a")
    without = write_report(finished / "run").read_text()
    assert (
        "A green frame" not in without
        and "solution" not in part(without, "a")
        and 'class="right"' not in part(without, "a")
    )


def test_views_are_those_of_the_search_and_no_answer_is_drawn_as_none(finished):
    candidates = (Candidate(RIGHT, (-0.5,), (0, 1, 2)),)
    record = TaskResult("a", "ok", "", ((RIGHT, WRONG),), (candidates,), ("w", "x", "y", "z"))
    store.write_record(finished / "run", record)
    html = write_report(finished / "run").read_text()
    assert "in 3 of 4 views" in part(html, "a")
    assert "no answer" in part(html, "c") and "attempt" not in part(html, "c") and "no answer" not in part(html, "a")


def test_tasks_that_cannot_be_read_count_in_the_score_and_are_told(finished):
    told = json.loads((finished / "challenges.json").read_text())
    (finished / "bad.json").write_text(json.dumps(told | {"c": {"train": [], "test": []}}))
    settings = {"config": Config(), "budget_s": 0.0, "progress": False}
    run(finished / "bad.json", finished / "model", finished / "other", **settings)
    html = write_report(finished / "other", finished / "solutions.json").read_text()
    assert "0/3" in html and '<p class="skipped">task c' in html


def test_a_challenge_file_that_has_moved_is_named(finished):
    (finished / "challenges.json").rename(finished / "moved.json")
    with pytest.raises(InputError, match="challenges.json is gone; name it by --challenges"):
        write_report(finished / "run")
    assert "2 ok" in write_report(finished / "run", challenges_path=finished / "moved.json").read_text()


def test_tasks_without_a_solution_are_told_beside_the_score(finished):
    (finished / "few.json").write_text(json.dumps({"a": [RIGHT.tolist()]}))
    html = write_report(finished / "run", finished / "few.json").read_text()
    assert "1/1" in html and "2 tasks that the solutions file lacks" in html


def test_solutions_of_other_tasks_are_refused(finished):
    (finished / "other.json").write_text(json.dumps({"z": [RIGHT.tolist()]}))
    with pytest.raises(InputError, match="other.json: hold none of this run's tasks"):
        write_report(finished / "run", finished / "other.json")


def test_how_far_a_task_was_adapted_and_that_nothing_was_found_is_told(finished):
    notes = {"steps": 0, "ended": "no sequence is short enough"}
    record = TaskResult("b", "ok", "", ((WRONG, RIGHT),), ((),), ("x",), {"adapt": 1.0}, notes=notes)
    store.write_record(finished / "run", record)
    told = part(write_report(finished / "run").read_text(), "b")
    assert "0 steps, no sequence is short enough, no candidate found" in told


def test_each_device_has_a_bar_of_its_tasks(finished):
    rows = re.findall(r'<tr class="device">.*?</tr>', write_report(finished / "run").read_text())
    assert len(rows) == 2 and 'title="a ok 4.0 s"' in rows[0] and "cpu:1" in rows[1] and "1 tasks, 4 s" in rows[1]


def test_it_stands_alone_and_its_pictures_hold_the_grids(finished):
    html = write_report(finished / "run", finished / "solutions.json").read_text()
    assert not re.search(r'(src|href)="(?!data:)', html) and "<script" not in html
    sources = re.findall(r'base64,([^"]+)"[^>]*class="right"', part(html, "a"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0]))).convert("RGB"))
    expected = [[[int(COLORS[v][i : i + 2], 16) for i in (1, 3, 5)] for v in row] for row in RIGHT]
    assert shown.tolist() == expected


def test_a_reason_cannot_inject_markup(finished):
    store.write_record(finished / "run", TaskResult("c", "failed", "<script>alert(1)</script>"))
    run(
        finished / "challenges.json",
        finished / "model",
        finished / "run",
        config=Config(),
        budget_s=0.0,
        progress=False,
    )
    html = write_report(finished / "run").read_text()
    assert "<script" not in html and "&lt;script" in html


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.json; give"):
        write_report(tmp_path)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=2000", "--enable-logging=stderr",
    "--log-level=0", "--dump-dom",
]  # fmt: skip
PROBE = """<script>onload = () => {
  const pictures = [...document.images];
  document.title = pictures.filter(p => p.complete && p.naturalWidth > 0).length + " of " + pictures.length;
}</script>"""


def shown(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page as Chromium has it after loading, and what its console got."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", page.resolve().as_uri()]
    env = os.environ | {"HOME": str(profile)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=env)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")
def test_a_browser_shows_every_picture_and_reports_no_error(finished):
    page = write_report(finished / "run", finished / "solutions.json")
    page.write_text(page.read_text() + PROBE)  # the page itself has no script
    dom, console = shown(page, finished / "profile")
    loaded, of = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())
    assert loaded == of > 10 and console == []
    assert '<details id="a">' in dom and 'alt="grid of 2 x 2" class="right"' in dom


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")
def test_the_same_check_sees_a_lost_picture_and_a_script_error(finished):
    page = write_report(finished / "run")
    text = page.read_text().replace("base64,iVBOR", "base64,iVBOX", 1)
    page.write_text(text + PROBE + "<script>nothing.there</script>")
    dom, console = shown(page, finished / "profile")
    loaded, of = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())
    assert loaded == of - 1 and len(console) == 1
