"""A disk that is full or read-only, at the start and midway: a valid file stands, and no answer is lost that it had."""

import contextlib
import os
import subprocess

import pytest

from ttt_core.errors import InputError
from ttt_core.run import dispatch, store
from ttt_core.run.store import write_atomic


@pytest.fixture
def small(place):
    """A file system of 1 MiB as root/run; skips where this user may mount none."""
    folder = place.root / "run"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    while subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False).returncode == 0:
        pass


def fill(folder, but: int = 0) -> None:
    """Leave `but` bytes free."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    if but:
        os.truncate(folder / "filler", max(0, (folder / "filler").stat().st_size - but))


def read_only(folder, on: bool) -> None:
    """A second mount of the folder over itself, read-only: files opened before do not hinder it."""
    if on:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    else:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def after(task_id: str, act):
    """Within the context, `act` once the record of `task_id` stands."""
    ended = dispatch._ended

    def then(work, state, name, turn, outcome, used_s):
        ended(work, state, name, turn, outcome, used_s)
        if turn.task_id == task_id:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_ended", then)
        yield


def test_a_disk_full_at_the_start_is_one_clear_error(place, small):
    fill(small)
    with pytest.raises(InputError, match=r"run folder .*: No space left on device; make room"):
        place.run()


def test_a_disk_too_small_for_the_final_file_is_told_at_once_and_leaves_a_valid_one(place, small):
    place.write({f"t{i}": place.task(i % 4) for i in range(100)})
    with pytest.raises(InputError, match="No space left on device; make room"):
        place.run()  # 150 test inputs of at most 8 KiB
    assert place.answered() == set() and place.turns() == []


def test_a_disk_full_midway_loses_no_answer(place, small):
    with after("b", lambda: fill(small)):
        summary = place.run()
    assert summary.ok == 4 and place.answered() == set("abcd")  # into the reserved room
    assert not (small / "tasks" / "c.json").exists()
    (small / "filler").unlink()
    before = (small / "submission.json").read_bytes()
    assert place.run(budget_s=0.0).skipped == 1 and (small / "submission.json").read_bytes() == before


def test_without_the_reserved_room_the_same_disk_loses_answers(place, small, monkeypatch):
    """The naive twin: plain atomic writes."""
    monkeypatch.setattr(store, "write_reserved", write_atomic)
    with after("b", lambda: fill(small)):
        assert "submission not written (No space left on device)" in place.run().stopped
    assert place.answered() == set("ab")


def test_a_read_only_folder_at_the_start_is_one_clear_error(place, small):
    read_only(small, True)
    with pytest.raises(InputError, match="Read-only file system; give a folder that can be written"):
        place.run()


def test_a_folder_read_only_midway_keeps_its_valid_file_and_goes_on_when_it_can(place, small):
    with after("b", lambda: read_only(small, True)):
        assert "submission not written (Read-only file system" in place.run().stopped
    assert place.answered() == set("ab")
    read_only(small, False)
    assert place.run().ok == 4 and place.answered() == set("abcd")


def test_read_only_for_a_while_is_made_up_for(place, small):
    with after("b", lambda: read_only(small, True)), after("c", lambda: read_only(small, False)):
        assert place.run().ok == 4 and place.answered() == set("abcd")
    assert any("record of task" in told for told in place.receipt()["disk_faults"])
