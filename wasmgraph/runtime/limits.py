"""Sizes and durations as people write them: "512MiB", "10s"; what a failed allocation says.

Not for enforcing anything.
"""

from __future__ import annotations

import math
import re

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "m": 1000**2,
    "mb": 1000**2,
    "g": 1000**3,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_TIME_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")


def parse_size(value: int | str) -> int:
    """Bytes from a number or a text such as "512MiB", "1.5GB" or "65536".

    KiB, MiB and GiB are powers of 1024; kB, MB and GB (or k, m, g) of 1000.

    Raises:
        ValueError: not a positive size.
    """
    if isinstance(value, str):
        amount = math.floor(_quantity(value, _SIZE_UNITS, "a size such as 512MiB"))
    else:
        amount = int(value)
    if amount <= 0:
        raise ValueError(f"a memory limit must be positive, found {value!r}")
    return amount


def parse_duration(value: float | str) -> float:
    """Seconds from a number or a text such as "10s", "250ms" or "2min".

    Raises:
        ValueError: not a positive, finite duration.
    """
    if isinstance(value, str):
        seconds = _quantity(value, _TIME_UNITS, "a duration such as 10s or 250ms")
    else:
        seconds = float(value)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"a time limit must be positive, found {value!r}")
    return seconds


def format_size(nbytes: int) -> str:
    """A size for people: exact below 1 KiB, else with one decimal, e.g. "18.8 MiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    amount = float(nbytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}"


def speaks_of_memory(text: str) -> bool:
    """Whether a graph's error is a failed allocation: the executor's words, or Rust's."""
    words = ("out of memory", "no memory left", "memory allocation of")
    return any(word in text for word in words)


def _quantity(text: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = _QUANTITY.fullmatch(text)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"expected {expected}, found {text!r}")
    return float(match[1]) * unit
