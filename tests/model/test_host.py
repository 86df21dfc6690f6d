"""What memory is left: of the machine, and of the control groups that a container is in."""

import subprocess
import sys

import pytest

from ttt_core.model import host

GIB = 2**30


def group(folder, limit, used, cached, v2: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    kind = "inactive_file" if v2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 5\n{kind} {cached}\n")


@pytest.mark.parametrize("v2", [True, False])
def test_the_narrowest_of_a_process_s_groups_counts_and_cached_files_do_not(tmp_path, v2):
    proc, top = tmp_path / "cgroup", tmp_path / "fs" if v2 else tmp_path / "fs/memory"
    proc.write_text("0::/pod/box\n" if v2 else "3:cpuset:/\n2:cpu,memory:/pod/box\n")
    group(top / "pod/box", "max" if v2 else 2**63 - 4096, 3 * GIB, 0, v2)
    assert host.cgroup_free(proc, tmp_path / "fs") > 2**62
    group(top / "pod", 8 * GIB, 5 * GIB, GIB, v2)
    assert host.cgroup_free(proc, tmp_path / "fs") == 4 * GIB
    group(top / "pod/box", 4 * GIB, 3 * GIB, 0, v2)
    assert host.cgroup_free(proc, tmp_path / "fs") == GIB
    group(top / "pod/box", 2 * GIB, 3 * GIB, 0, v2)
    assert host.cgroup_free(proc, tmp_path / "fs") == 0


def test_a_container_whose_own_group_stands_at_the_top_is_limited_by_it(tmp_path):
    (tmp_path / "cgroup").write_text("4:memory:/docker/1234\n")
    group(tmp_path / "fs/memory", 8 * GIB, 2 * GIB, 0, v2=False)
    assert host.cgroup_free(tmp_path / "cgroup", tmp_path / "fs") == 6 * GIB


def test_without_groups_the_machine_s_memory_is_what_is_left(tmp_path, monkeypatch):
    assert host.cgroup_free(tmp_path / "none", tmp_path) == float("inf")
    whole = host.free_bytes()
    assert 0 < whole < 2**50
    monkeypatch.setattr(host, "cgroup_free", lambda: 7.0)
    monkeypatch.setattr(host, "_kept", lambda: 5.0)
    assert host.free_bytes() == 12.0


@pytest.mark.parametrize(
    ("told", "free"),
    [
        ({"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 16384}, 8 * GIB),
        ({"SC_PHYS_PAGES": -1, "SC_PAGE_SIZE": 16384}, float("inf")),
        ({"SC_PAGE_SIZE": 16384}, float("inf")),
    ],
)
def test_where_nothing_says_what_is_free_half_of_the_memory_is(monkeypatch, told, free):
    def sysconf(name):
        if name not in told:
            raise ValueError("unrecognized configuration name")
        return told[name]

    def read_text(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(host.os, "sysconf", sysconf)
    monkeypatch.setattr(host.Path, "read_text", read_text)  # no /proc/meminfo, as on macOS
    assert host.free_bytes() == free
    monkeypatch.delattr(host.os, "sysconf")  # as on Windows
    assert host.free_bytes() == float("inf")


def test_what_the_allocator_keeps_is_not_taken():
    """In a process of its own, for keeping memory cannot be switched off again."""
    lines = (
        "import torch; from ttt_core.model import host, speed; speed.keep_memory(); before = host._kept()",
        "blocks = [torch.ones(2**22) for _ in range(16)]; end = torch.ones(9); del blocks; print(host._kept() - before)",
    )
    ran = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert 2**28 * 0.99 < float(ran.stdout) < 2**29
