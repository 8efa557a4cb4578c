"""Put program, kernels and memory plan together into the bundle's description and weights."""

from __future__ import annotations

from collections.abc import Mapping

from wasmgraph.bundle import (
    Bundle,
    Constant,
    Graph,
    Kernel,
    SimdLevel,
    Source,
    Step,
    Tensor,
)
from wasmgraph.errors import UnsupportedModelError
from wasmgraph.lower.kernels import LoweredKernels
from wasmgraph.optimise.memory import MemoryPlan
from wasmgraph.optimise.program import Port, Program

MAX_MEMORY = 2**32 - 2**20
"""Bytes of a 32-bit memory, less the stack."""


def assemble(
    program: Program,
    lowered: LoweredKernels,
    plan: MemoryPlan,
    object_code: bytes,
    source: Source,
    producer: Mapping[str, str],
    simd: SimdLevel,
) -> Bundle:
    """The bundle of a planned program.

    Raises:
        UnsupportedModelError: weights, inputs, outputs and arena exceed 32-bit memory.
    """
    total = plan.params_nbytes + plan.io_nbytes + plan.arena_nbytes
    if total > MAX_MEMORY:
        raise UnsupportedModelError(
            f"{source.name} needs {total / 2**30:.1f} GiB of memory, a 32-bit graph has 4 GiB",
            hint="use smaller input shapes",
        )

    def tensor(port: Port) -> Tensor:
        return Tensor(port.name, port.dtype, port.shape, plan.buffers[port.value])

    graph = Graph(
        source=source,
        producer=producer,
        simd=simd,
        inputs=tuple(map(tensor, program.inputs)),
        outputs=tuple(map(tensor, program.outputs)),
        constants=tuple(
            Constant(
                weight.name, weight.array.dtype.name, weight.array.shape, plan.buffers[value].offset
            )
            for value, weight in program.weights.items()
        ),
        kernels=tuple(Kernel(k.symbol, k.buffers, k.description) for k in lowered.kernels),
        steps=tuple(
            Step(
                lowered.by_function[call.function],
                tuple(plan.buffers[value] for value in (*call.reads, *call.writes)),
                call.nodes,
                len(call.writes),
            )
            for call in program.calls
        ),
        params_nbytes=plan.params_nbytes,
        io_nbytes=plan.io_nbytes,
        arena_nbytes=plan.arena_nbytes,
    )
    params = bytearray(plan.params_nbytes)
    for value, weight in program.weights.items():
        buffer = plan.buffers[value]
        params[buffer.offset : buffer.offset + buffer.nbytes] = weight.array.tobytes()
    return Bundle(graph, object_code, bytes(params))
