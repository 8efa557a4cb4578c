"""LSTM and GRU with the usual activations as the executor's `fast_recurrent`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wasmgraph.dynamic.constants import Constants
from wasmgraph.dynamic.packing import pack
from wasmgraph.dynamic.program import Node
from wasmgraph.dynamic.view import Array

_GRU, _LSTM = 1, 2
_SIGMOID, _TANH = 0, 1
_USUAL = {_GRU: (_SIGMOID, _TANH), _LSTM: (_SIGMOID, _TANH, _TANH)}
_BIAS, _PEEPHOLES = 3, 7


def recurrent(node: Node, constants: Constants) -> Node:
    """The node with packed weights, where they are constants and the cell is a usual one."""
    kind, hidden, directions, _, _, flag, clip, *activations = node.words
    weights, recurrence = (constants.array(slot) for slot in node.inputs[1:3])
    if weights is None or recurrence is None or kind not in _USUAL or clip:
        return node
    # A GRU's reset gate comes after the product; an LSTM's input and forget gate are two.
    if bool(flag) != (kind == _GRU) or node.inputs[_PEEPHOLES] is not None:
        return node
    usual = _USUAL[kind]
    for direction in range(directions):
        if tuple(activations[9 * direction : 9 * direction + 3 * len(usual) : 3]) != usual:
            return node
    bias = constants.array(node.inputs[_BIAS])
    if bias is None and node.inputs[_BIAS] is not None:
        return node
    wide = weights.shape[1]
    if bias is None:
        bias = np.zeros((directions, 2 * wide), np.float32)
    assert node.inputs[1] is not None
    name = constants.name(node.inputs[1])
    slots = [
        constants.add(part, f"{name} ({what})")
        for part, what in (
            (_packed(weights), "packed"),
            (_packed(recurrence), "of the state, packed"),
            (_starts(kind, bias, hidden), "bias"),
        )
    ]
    inputs = (node.inputs[0], *slots, *node.inputs[4:7])
    return replace(node, operator="wgd_fast_recurrent", inputs=inputs)


def _packed(matrices: Array) -> Array:
    """A matrix per direction, of gates by elements, as panels of gates."""
    return np.stack([pack(matrix.T) for matrix in matrices])


def _starts(kind: int, bias: Array, hidden: int) -> Array:
    """What the sums over the input and over the state begin with, per direction."""
    wide = bias.shape[1] // 2
    of_input, of_state = bias[:, :wide], bias[:, wide:]
    if kind == _LSTM:
        # Its second product goes on with the first.
        return np.concatenate([of_input + of_state, np.zeros_like(of_state)], 1)
    own = np.zeros_like(of_state)
    own[:, 2 * hidden :] = of_state[:, 2 * hidden :]
    return np.concatenate([of_input + of_state - own, own], 1)
