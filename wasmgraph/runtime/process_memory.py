"""The memory of a process, as the system counts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of a process that were in memory: now, and at most since it began."""

    resident: int
    peak: int


def process_memory(pid: int | None = None) -> ProcessMemory | None:
    """Of this process or another, or None where the system does not tell (it takes Linux' /proc).

    Pages shared with other processes count.
    """
    try:
        text = Path(f"/proc/{pid or os.getpid()}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name in ("VmRSS", "VmHWM")
    }
    if len(kilobytes) < 2:  # a process that has ended has no memory
        return None
    return ProcessMemory(kilobytes["VmRSS"] * 1024, kilobytes["VmHWM"] * 1024)
