"""What a test asks about processes that are not its own."""

import subprocess


def living(column: str) -> list[str]:
    """What `ps` has in `column` of every process; one that ended and waits to be reaped has ended."""
    shown = subprocess.run(["ps", "-eo", f"stat=,{column}="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=1) for line in shown.splitlines()]
    return [row[1] for row in rows if len(row) == 2 and not row[0].startswith("Z")]


def running(pid: int) -> bool:
    return str(pid) in living("pid")
