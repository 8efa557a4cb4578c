"""Chains of element-wise operators over a strip of elements, whose length comes at run time.

The executor (toolchain/executor/src/dynamic/fast/chain.rs) cuts tensors into strips along which
every operand either goes on evenly or stays the same.
"""

from __future__ import annotations

from wasmgraph.assembler.function import I32, V128, Function, Local, binary, i32, load, load_i32
from wasmgraph.kernels.chain import Chain, Step, emit_chain

LANES = 4
_UNROLL = 4
"""Vectors per round of the loop of a chain without costly steps; an operand that stays the same is
repeated for all of them."""


def strip(name: str, chain: Chain) -> Function:
    """out[i] = chain(operands[0][i], operands[1][i], ...), everything float32

    Parameters: the address of a table, how many elements. The table has the address of the output,
    then for every operand its address and the bytes that 16 elements of it take: 64, or 0 where the
    16 elements there are all equal. Whole vectors are read beyond the last element; nothing is
    written there. The output may be an operand that goes on evenly.
    """
    f = Function(name, 2)
    table, left = f.params
    out = f.new(load_i32(table))
    pointers = [f.new(load_i32(table, 4 + 8 * i)) for i in range(chain.operands)]
    steps = [f.new(load_i32(table, 8 + 8 * i)) for i in range(chain.operands)]
    rounds = f.local(I32)
    if not chain.is_costly:
        f.set(rounds, binary("i32.shr_u", left, i32(4)))
        with f.when(rounds), f.repeat_until(rounds, -1, i32(0)):
            for index in range(_UNROLL):
                value, taken = emit_chain(f, chain, [load(p, 16 * index) for p in pointers])
                f.store(out, value, 16 * index)
                f.release(*taken)
            _advance(f, out, pointers, steps, 16 * _UNROLL)
        f.set(left, binary("i32.and", left, i32(15)))
    for step in steps:
        f.set(step, binary("i32.shr_u", step, i32(2)))
    f.set(rounds, binary("i32.shr_u", left + (LANES - 1), i32(2)))
    with f.when(rounds), f.repeat_until(rounds, -1, i32(0)), f.scratch(V128, 1) as (result,):
        value, taken = emit_chain(f, chain, [load(p) for p in pointers])
        f.set(result, value)
        f.release(*taken)
        with f.when(binary("i32.ge_u", left, i32(LANES))):
            f.store(out, result)
        with f.when(binary("i32.lt_u", left, i32(LANES))):
            for lanes in range(1, LANES):
                with f.when(binary("i32.eq", left, i32(lanes))):
                    f.store_lanes(out, result, 0, lanes)
        f.set(left, left - LANES)
        _advance(f, out, pointers, steps, 16)
    return f


def _steps(*steps: tuple[str, tuple[int, ...]]) -> tuple[Step, ...]:
    return tuple(Step(op, args) for op, args in steps)


CELLS = {
    # x, y: e**(x - y)
    "wgk_exp_minus": Chain(2, _steps(("subtract", (0, 1)), ("exp", (2,)))),
    # The gates before the sigmoid.
    "wgk_lstm_gates": Chain(1, _steps(("sigmoid", (0,)))),
    # Forget gate, cell, input gate, new cell before tanh: the cell.
    "wgk_lstm_cell": Chain(
        4, _steps(("multiply", (0, 1)), ("tanh", (3,)), ("multiply", (2, 5)), ("add", (4, 6)))
    ),
    # Output gate, cell: the state.
    "wgk_lstm_state": Chain(2, _steps(("tanh", (1,)), ("multiply", (0, 2)))),
    # The gates' parts of the input and of the state.
    "wgk_gru_gates": Chain(2, _steps(("add", (0, 1)), ("sigmoid", (2,)))),
    # What the input gives, reset gate, what the state gives, update gate, state: the state.
    "wgk_gru_state": Chain(
        5,
        _steps(
            ("multiply", (1, 2)),
            ("add", (0, 5)),
            ("tanh", (6,)),
            ("subtract", (4, 7)),
            ("multiply", (3, 8)),
            ("add", (7, 9)),
        ),
    ),
}
"""Chains of the executor's own (toolchain/executor/src/dynamic/fast), by symbol."""


def _advance(
    f: Function, out: Local, pointers: list[Local], steps: list[Local], nbytes: int
) -> None:
    f.set(out, out + nbytes)
    for pointer, step in zip(pointers, steps, strict=True):
        f.set(pointer, pointer + step)
