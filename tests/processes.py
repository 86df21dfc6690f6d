"""What a test asks about processes that are not its own."""

from pathlib import Path


def running(pid: int) -> bool:
    """Whether `pid` still runs; one that ended and was not waited for does not. Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
