"""Operators that Relax does not have, carried through its passes as calls of external functions.

The external function's name holds the operator's name and its parameters, so that passes see two
calls as equal exactly where they compute the same, and drop one whose outputs nobody reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

_PREFIX = "wasmgraph:"


@dataclass(frozen=True)
class OpaqueCall:
    """What an opaque call computes.

    Attributes:
        name: The operator; `wasmgraph.optimise.select` knows what computes it.
        parameters: By name, what JSON can hold.
    """

    name: str
    parameters: Mapping[str, Any]


def opaque_call(
    name: str,
    parameters: Mapping[str, Any],
    inputs: Sequence[Any],
    outputs: Sequence[tuple[str, Sequence[int]]],
) -> Any:
    """A Relax expression: a tensor, or a tuple of them where there are several outputs.

    Args:
        name: The operator.
        parameters: What JSON can hold.
        inputs: Tensor expressions.
        outputs: (dtype, shape) of every output.
    """
    text = json.dumps([name, parameters], sort_keys=True, separators=(",", ":"))
    types = [relax.TensorType(tuple(shape), dtype) for dtype, shape in outputs]
    return relax.op.call_dps_packed(_PREFIX + text, relax.Tuple(list(inputs)), types)


def read_opaque(call: Any) -> OpaqueCall | None:
    """What a Relax call computes if `opaque_call` made it, else None."""
    if call.op.name != "relax.call_dps_packed":
        return None
    symbol = str(call.args[0].global_symbol)
    if not symbol.startswith(_PREFIX):
        return None
    return OpaqueCall(*json.loads(symbol[len(_PREFIX) :]))
