"""Checks a bundle's description before anything is made of it: everything in it becomes an address
or a name of the linker's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wasmgraph.bundle import Buffer, Graph, Region, Share, Step, Tensor
from wasmgraph.dynamic.program import DynamicProgram, all_nodes
from wasmgraph.errors import ModelError
from wasmgraph.metadata import DTYPE_NBYTES, MAX_TENSOR_NBYTES

# What C, an object file and the linker's command line all take.
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")


def check_description(graph: Graph) -> None:
    """Check that the graph's addresses, names and shapes are sound.

    Raises:
        ModelError: the first one that is not.
    """
    sizes: dict[Region, int] = {
        "params": graph.params_nbytes,
        "io": graph.io_nbytes,
        "arena": graph.arena_nbytes,
    }
    for region, size in sizes.items():
        _require(
            isinstance(size, int) and 0 <= size <= MAX_TENSOR_NBYTES,
            f"the region {region} of {size} bytes does not fit a 32-bit memory",
        )
    inputs, outputs = _shares(graph)
    for kind, tensors, shares in (
        ("input", graph.inputs, inputs),
        ("output", graph.outputs, outputs),
    ):
        _require(len(shares) == len(tensors), f"{len(tensors)} {kind}s have {len(shares)} shares")
        for tensor, share in zip(tensors, shares, strict=True):
            _check_tensor(f"{kind} {tensor.name!r}", tensor, share, sizes)
    for kernel in graph.kernels:
        _require(
            isinstance(kernel.symbol, str) and _SYMBOL.fullmatch(kernel.symbol) is not None,
            f"kernel symbol {kernel.symbol!r} is not a C name",
        )
    for number, step in enumerate(graph.steps):
        _check_step(f"step {number}", step, graph, sizes)
    _check_bounds(graph)
    if graph.dynamic is not None:
        _check_dynamic(graph.dynamic, graph)


def _shares(graph: Graph) -> tuple[Sequence[Share | None], Sequence[Share | None]]:
    """What one sample has of the inputs and the outputs."""
    batch = graph.batch
    if batch is None:
        return [None] * len(graph.inputs), [None] * len(graph.outputs)
    _require(graph.dynamic is None, "a dynamic graph has no batch of samples")
    for tensor, share in zip(graph.inputs, batch.inputs, strict=False):
        # The batch has as many samples as an input's axis has elements.
        _require(
            share is None or share.extent == 1,
            f"one sample has {share and share.extent} of {tensor.name!r} on the batch axis",
        )
    return batch.inputs, batch.outputs


def _check_tensor(what: str, tensor: Tensor, share: Share | None, sizes: dict[Region, int]) -> None:
    _check_text(what, tensor.name)
    _require(tensor.dtype in DTYPE_NBYTES, f"{what} has the unknown dtype {tensor.dtype!r}")
    if tensor.buffer is None:
        for extent in tensor.shape:
            if isinstance(extent, str):
                _check_text(what, extent)
            else:
                _require(extent >= 0, f"{what} has the extent {extent!r}, which is no count")
        return
    nbytes = DTYPE_NBYTES[tensor.dtype]
    for extent in _sample_shape(what, tensor, share):
        if not isinstance(extent, int) or extent < 0:
            raise _inconsistent(f"{what} has the extent {extent!r}, which is no count")
        nbytes *= extent
    _require(
        nbytes == tensor.buffer.nbytes,
        f"{what} needs {nbytes} bytes, its buffer has {tensor.buffer.nbytes}",
    )
    _check_buffer(what, tensor.buffer, sizes)


def _sample_shape(what: str, tensor: Tensor, share: Share | None) -> list[int | str]:
    """The shape of what lies in the tensor's buffer."""
    shape = list(tensor.shape)
    if share is not None:
        is_open = 0 <= share.axis < len(shape) and isinstance(shape[share.axis], str)
        _require(is_open, f"{what} has no open axis {share.axis}")
        _check_text(what, str(shape[share.axis]))
        shape[share.axis] = share.extent
    return shape


def _check_bounds(graph: Graph) -> None:
    open_axes = {d for tensor in graph.inputs for d in tensor.shape if isinstance(d, str)}
    for axis, bound in graph.bounds.items():
        _require(axis in open_axes, f"the axis {axis!r} has a bound, and no input has it")
        is_extent = type(bound) is int and 0 < bound < 2**31
        _require(is_extent, f"the axis {axis!r} has the bound {bound!r}, which is no extent")
    reserved = graph.reserved_nbytes
    is_size = 0 <= reserved < 2**32 and reserved % 65536 == 0
    _require(is_size, f"{reserved} reserved bytes are no pages of a 32-bit memory")
    _require(not reserved or not graph.threads, "memory is reserved for several threads")


def _check_dynamic(program: DynamicProgram, graph: Graph) -> None:
    _require(not graph.steps and not graph.threads, "a dynamic graph has neither steps nor threads")
    _require(
        len(program.constants) == len(graph.constants),
        f"{len(program.constants)} slots hold {len(graph.constants)} constants",
    )
    for kind, slots, tensors in (
        ("inputs", program.body.inputs, graph.inputs),
        ("outputs", program.body.outputs, graph.outputs),
    ):
        _require(len(slots) == len(tensors), f"{len(slots)} slots hold {len(tensors)} {kind}")
    for constant in graph.constants:
        what = f"constant {constant.name!r}"
        _require(constant.dtype in DTYPE_NBYTES, f"{what} has the dtype {constant.dtype!r}")
        place = Buffer("params", constant.offset, constant.nbytes)
        _check_buffer(what, place, {"params": graph.params_nbytes, "io": 0, "arena": 0})
    for node in all_nodes(program.body):
        _check_text("a node", node.name)
        _require(
            re.fullmatch(r"wgd_\w+", node.operator) is not None,
            f"node {node.name!r} calls {node.operator!r}, which is no operator",
        )


def _check_step(what: str, step: Step, graph: Graph, sizes: dict[Region, int]) -> None:
    _require(
        isinstance(step.kernel, int) and 0 <= step.kernel < len(graph.kernels),
        f"{what} calls kernel {step.kernel!r}, there are {len(graph.kernels)}",
    )
    kernel = graph.kernels[step.kernel]
    _require(
        len(step.buffers) == kernel.buffers,
        f"{what} passes {len(step.buffers)} buffers, {kernel.symbol} takes {kernel.buffers}",
    )
    for node in step.nodes:
        _check_text(what, node)
    for buffer in step.buffers:
        _check_buffer(what, buffer, sizes)
    _require(
        0 <= step.writes <= len(step.buffers),
        f"{what} writes {step.writes} of {len(step.buffers)} buffers",
    )
    for buffer in step.buffers[len(step.buffers) - step.writes :]:
        _require(buffer.region != "params", f"{what} writes into the weights")


def _check_buffer(what: str, buffer: Buffer, sizes: dict[Region, int]) -> None:
    size = sizes[buffer.region]
    inside = buffer.offset >= 0 and buffer.nbytes >= 0 and buffer.offset + buffer.nbytes <= size
    # A tensor without elements may sit at the end of a region, or in one that has no bytes at all;
    # the latter has no address to give.
    _require(
        inside and size > 0,
        f"{what} has {buffer.nbytes} bytes at {buffer.offset}, {buffer.region} has {size}",
    )


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except (UnicodeEncodeError, AttributeError):
        raise ModelError(f"{what}: {text!r} is not a name") from None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _inconsistent(message)


def _inconsistent(message: str) -> ModelError:
    return ModelError(
        f"the bundle's graph.json is inconsistent: {message}", hint="compile the model again"
    )
