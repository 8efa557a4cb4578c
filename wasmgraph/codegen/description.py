"""Put program, kernels and memory plan together: the bundle's description and its weights."""

from __future__ import annotations

from collections.abc import Mapping

from wasmgraph.bundle import (
    Buffer,
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
from wasmgraph.optimise.program import Place, Port, Program

MAX_MEMORY = 2**32 - 2**20
"""Bytes of a 32-bit memory, less the stack."""


def describe(
    program: Program,
    lowered: LoweredKernels,
    plan: MemoryPlan,
    source: Source,
    producer: Mapping[str, str],
    simd: SimdLevel,
) -> tuple[Graph, bytes]:
    """The description and the weights of a planned program.

    Raises:
        UnsupportedModelError: weights, inputs, outputs and arena exceed 32-bit memory.
    """
    total = plan.params_nbytes + plan.io_nbytes + plan.arena_nbytes
    if total > MAX_MEMORY:
        raise UnsupportedModelError(
            f"{source.name} needs {total / 2**30:.1f} GiB of memory, a 32-bit graph has 4 GiB",
            hint="use smaller input shapes",
        )

    def locate(place: Place) -> Buffer:
        whole = plan.buffers[place.storage]
        return Buffer(whole.region, whole.offset + place.offset, place.nbytes)

    def tensor(port: Port) -> Tensor:
        return Tensor(port.name, port.dtype, port.shape, locate(port.place))

    graph = Graph(
        source=source,
        producer=producer,
        simd=simd,
        inputs=tuple(map(tensor, program.inputs)),
        outputs=tuple(map(tensor, program.outputs)),
        constants=tuple(
            Constant(
                weight.name,
                weight.array.dtype.name,
                weight.array.shape,
                plan.buffers[storage].offset,
            )
            for storage, weight in program.weights.items()
        ),
        kernels=tuple(Kernel(k.symbol, k.buffers, k.description) for k in lowered.kernels),
        steps=tuple(
            Step(
                lowered.index[call.kernel],
                tuple(map(locate, (*call.reads, *call.writes))),
                call.nodes,
                len(call.writes),
                getattr(call.kernel, "flops", 0),
                stage=number,
            )
            for number, stage in enumerate(program.stages)
            for call in stage
        ),
        params_nbytes=plan.params_nbytes,
        io_nbytes=plan.io_nbytes,
        arena_nbytes=plan.arena_nbytes,
        threads=program.threads,
        wide_nbytes=plan.params_nbytes
        + sum(w.wide_nbytes - w.array.nbytes for w in program.weights.values()),
    )
    params = bytearray(plan.params_nbytes)
    for storage, weight in program.weights.items():
        buffer = plan.buffers[storage]
        params[buffer.offset : buffer.offset + buffer.nbytes] = weight.array.tobytes()
    return graph, bytes(params)
