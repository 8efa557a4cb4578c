"""The cells of LSTM, GRU and RNN, element by element: from gates and old state to the new state.

Source of the equations: ONNX's specification of the three operators. As in onnxruntime, a clip
bounds what the gates and the candidate are made of, but not the state that an LSTM's h is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wasmgraph.assembler.function import Expr, Function, Local, f32x4, load_lanes
from wasmgraph.kernels import vector_math
from wasmgraph.kernels.activations import Activation, emit_activation


@dataclass(frozen=True)
class Elements:
    """Up to four elements of one row, where a cell works.

    Attributes:
        f: The function under construction.
        pointers: By tensor; each moves along its row.
        offset: Bytes from the pointers.
        lanes: How many elements.
        hidden: Elements between neighbouring gates of an element.
        clip: Bound of what gates and candidates are made of, or None.
        coupled, reset_after: As in `Recurrence`.
    """

    f: Function
    pointers: Mapping[str, Local]
    offset: int
    lanes: int
    hidden: int
    clip: float | None
    coupled: bool
    reset_after: bool

    def load(self, name: str, gate: int = 0) -> Expr:
        """From a tensor, or from one of its gates."""
        return load_lanes(self.pointers[name], self.offset + 4 * gate * self.hidden, self.lanes)

    def store(self, names: Sequence[str], value: Local, gate: int = 0) -> None:
        """To every one of the tensors, or to one of their gates."""
        for name in names:
            offset = self.offset + 4 * gate * self.hidden
            self.f.store_lanes(self.pointers[name], value, offset, self.lanes)

    def activate(self, activation: Activation, value: Local) -> None:
        """value = activation(value), of a gate or a candidate."""
        if self.clip is not None:
            self.f.set(value, vector_math.clamp(value, -self.clip, self.clip))
        emit_activation(self.f, activation, value)


Emit = Callable[[Elements, Sequence[Activation]], None]


@dataclass(frozen=True)
class Pass:
    """One pass over the elements of a row.

    Attributes:
        tensors: Whose pointers it needs, those that are there at all.
        emit: What it does.
        gates: Over how many neighbouring gates it goes, as if they were one.
    """

    tensors: frozenset[str]
    emit: Emit
    gates: int = 1


@dataclass(frozen=True)
class Cell:
    """One kind of cell.

    Attributes:
        gates: How many, the candidate among them.
        products: How many of them each product with the state makes.
        finish: The pass after the last product.
        early: Passes before it, after the first product, that apply activations where they stand.
            Each is short, so that a processor overlaps more elements: an LSTM's cell of 128
            elements takes 0.95 us, in one pass 1.1 (one Zen 4 core, Wasmtime 50, 2026-11-20).
        reset: The pass before the second product, where it takes the state reset.
    """

    gates: int
    products: tuple[int, ...]
    finish: Pass
    early: tuple[Pass, ...] = ()
    reset: Pass | None = None


def _in_place(first: int, count: int, activation: int) -> Pass:
    """Apply one of the activations to `count` gates from the first on."""

    def emit(at: Elements, activations: Sequence[Activation]) -> None:
        value = at.f.new(at.load("gates", first))
        at.activate(activations[activation], value)
        at.store(["gates"], value, first)
        at.f.release(value)

    return Pass(frozenset(["gates"]), emit, count)


def _lstm_of_activated(at: Elements, activations: Sequence[Activation]) -> None:
    """Gates in the order input, output, forget, candidate."""
    f = at.f
    i, o, forget, candidate = (f.new(at.load("gates", gate)) for gate in range(4))
    c = f.new(forget * at.load("c") + i * candidate)
    at.store(["c"], c)
    emit_activation(f, activations[2], c)
    f.set(o, o * c)
    at.store(["h", "y"], o)
    f.release(i, o, forget, candidate, c)


def _lstm(at: Elements, activations: Sequence[Activation]) -> None:
    """Everything in one pass, since gates wait for others or for the state.

    Gates are in the order input, output, forget, candidate; peepholes input, output, forget.
    """
    f = at.f
    gate_activation, candidate_activation, output_activation = activations
    peeps = "peepholes" in at.pointers
    i, o, forget, candidate = (f.new(at.load("gates", gate)) for gate in range(4))
    c = f.new(at.load("c"))
    if peeps:
        f.set(i, i + at.load("peepholes", 0) * c)
        f.set(forget, forget + at.load("peepholes", 2) * c)
    at.activate(gate_activation, i)
    if at.coupled:
        f.set(forget, f32x4(1.0) - i)
    else:
        at.activate(gate_activation, forget)
    at.activate(candidate_activation, candidate)
    f.set(c, forget * c + i * candidate)
    at.store(["c"], c)
    if peeps:
        f.set(o, o + at.load("peepholes", 1) * c)
    at.activate(gate_activation, o)
    emit_activation(f, output_activation, c)
    f.set(o, o * c)
    at.store(["h", "y"], o)
    f.release(i, o, forget, candidate, c)


def _gru_reset(at: Elements, _: Sequence[Activation]) -> None:
    value = at.f.new(at.load("gates", 1) * at.load("h"))
    at.store(["reset"], value)
    at.f.release(value)


def _gru(at: Elements, activations: Sequence[Activation]) -> None:
    """Gates in the order update, reset, candidate."""
    f = at.f
    update, candidate = f.new(at.load("gates", 0)), f.new(at.load("gates", 2))
    if at.reset_after:
        f.set(candidate, at.load("gates", 1) * candidate + at.load("x", 2))
    at.activate(activations[1], candidate)
    f.set(candidate, (f32x4(1.0) - update) * candidate + update * at.load("h"))
    at.store(["h", "y"], candidate)
    f.release(update, candidate)


def _rnn(at: Elements, activations: Sequence[Activation]) -> None:
    value = at.f.new(at.load("gates"))
    at.activate(activations[0], value)
    at.store(["h", "y"], value)
    at.f.release(value)


_LSTM_TENSORS = frozenset(["gates", "peepholes", "c", "h", "y"])

CELLS: Mapping[str, Cell] = {
    "lstm": Cell(
        4,
        (4,),
        Pass(_LSTM_TENSORS, _lstm_of_activated),
        early=(_in_place(0, 3, 0), _in_place(3, 1, 1)),
    ),
    "gru": Cell(
        3,
        (2, 1),
        Pass(frozenset(["gates", "x", "h", "y"]), _gru),
        early=(_in_place(0, 2, 0),),
        reset=Pass(frozenset(["gates", "h", "reset"]), _gru_reset),
    ),
    "rnn": Cell(1, (1,), Pass(frozenset(["gates", "h", "y"]), _rnn)),
}

ENTANGLED_LSTM = Cell(4, (4,), Pass(_LSTM_TENSORS, _lstm))
"""With peepholes, or with a forget gate that is coupled to the input gate."""
