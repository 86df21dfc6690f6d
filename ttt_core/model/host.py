"""What of the machine this process may take: cores, and memory that is left. No torch."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use, by its affinity and its container's limit (control groups of version 1 or 2)."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, " ".join((root / file).read_text() for file in files).split())
            if quota > 0:
                return max(1, min(own, round(quota / period)))
    return own


def free_bytes() -> float:
    """Of the machine, or of the control groups that a container is in, whichever is less.

    Where the system does not say what is free (macOS), half of all it has; infinite where it does not say that either.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return _all_bytes() / 2
    return min(free, cgroup_free()) + _kept()


def _all_bytes() -> float:
    """Memory of the machine, free or not; infinite where the system does not say."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has none, other systems not all names
        return float("inf")
    return float(pages * size) if pages > 0 and size > 0 else float("inf")  # -1: it does not know


class _Mallinfo(ctypes.Structure):
    """mallinfo2 of glibc's malloc.h; fordblks: bytes of freed blocks that it holds for the next ones."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


def _kept() -> float:
    """Bytes that this process has freed and its allocator keeps (`speed.keep_memory`); 0 without a glibc of 2.33 or newer."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if ask is None:
        return 0.0
    ask.restype = _Mallinfo
    return float(ask().fordblks)


def cgroup_free(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that the process's control groups, of the kernel's version 1 or 2, leave it; infinite where none has a limit."""
    free = float("inf")
    for line in proc.read_text().splitlines() if proc.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, cached = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):  # a group has no more than those above it
            with contextlib.suppress(OSError, ValueError):  # not there, as those above a container are, or "max"
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                free = min(free, left + int(stat.get(cached, 0)))
            if folder == top:
                break
    return max(0.0, free)
