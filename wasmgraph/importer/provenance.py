"""How a Relax variable tells which ONNX node it comes from.

Relax keeps no source locations through its passes, but most of them keep variable names. Every
variable that holds a node's output is therefore named by the node's index.
"""

from __future__ import annotations

import re

_MARKER = re.compile(r"^n(\d+)o")


def marker(index: int) -> str:
    """The variable name for an output of node `index`; TVM may append a suffix to it."""
    return f"n{index}o"


def marked_node(variable: str) -> int | None:
    """The node index in a variable's name, if it has one."""
    match = _MARKER.match(variable)
    return int(match.group(1)) if match else None
