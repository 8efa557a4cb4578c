"""Pooling and resizing of channel-last images."""

from __future__ import annotations

from wasmgraph.kernels.pooling import Pool, separated
from wasmgraph.kernels.resize import Kind, Resize, axis_table
from wasmgraph.optimise.opgraph import Op
from wasmgraph.optimise.select.builder import Builder
from wasmgraph.optimise.select.byte_images import max_pool_bytes
from wasmgraph.optimise.view import View, channel_last

SEPARATE_FROM = 5
"""Maxima over windows this large go along rows, then columns: see `separated` for the figures."""


def _channel_last(builder: Builder, op: Op) -> View | None:
    info = builder.graph.tensors[op.inputs[0]]
    if info.dtype != "float32" or len(info.shape) != 4:
        return None
    view = builder.view(op.inputs[0])
    if view.shape[1] > 1 and view.strides[1] != 1:
        return builder.dense(view, op.nodes, channel_last(4))
    return view


def pool(builder: Builder, op: Op) -> bool:
    """max_pool2d and avg_pool2d."""
    info = builder.graph.tensors[op.inputs[0]]
    if op.kind == "nn.max_pool2d" and info.dtype in ("int8", "uint8") and 0 not in info.shape:
        return max_pool_bytes(builder, op)
    view = _channel_last(builder, op)
    if view is None or view.size == 0:
        return False
    shape = builder.graph.tensors[op.outputs[0]].shape
    out = builder.place(op.outputs[0], channel_last(4))
    top, left, bottom, right = (int(p) for p in op.attrs.padding)
    kernel = Pool(
        op="max" if op.kind == "nn.max_pool2d" else "average",
        batch=shape[0],
        in_h=view.shape[2],
        in_w=view.shape[3],
        channels=shape[1],
        in_batch=view.strides[0],
        in_row=view.strides[2],
        in_col=view.strides[3],
        out_h=shape[2],
        out_w=shape[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        kernel_h=int(op.attrs.pool_size[0]),
        kernel_w=int(op.attrs.pool_size[1]),
        stride_h=int(op.attrs.strides[0]),
        stride_w=int(op.attrs.strides[1]),
        dilation_h=int(op.attrs.dilation[0]),
        dilation_w=int(op.attrs.dilation[1]),
        pad_top=top,
        pad_left=left,
        pad_bottom=bottom,
        pad_right=right,
        count_include_pad=bool(op.attrs.count_include_pad),
    )
    name = op.kind.removeprefix("nn.")
    if kernel.op == "max" and min(kernel.kernel_h, kernel.kernel_w) >= SEPARATE_FROM:
        across, down = separated(kernel)
        between = builder.allocate(
            (shape[0], shape[1], view.shape[2], shape[3]), order=channel_last(4)
        )
        builder.emit(across, [view], [between], op.nodes, name)
        builder.emit(down, [between], [out], op.nodes, name)
    else:
        builder.emit(kernel, [view], [out], op.nodes, name)
    builder.set(op.outputs[0], out)
    return True


# Relax's names of the rounding of nearest neighbours, as the ONNX importer sets them.
_NEAREST = {
    "": "round_prefer_floor",
    "round": "round_prefer_floor",
    "round_prefer_floor": "round_prefer_floor",
    "round_prefer_ceil": "round_prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}
_KINDS: dict[str, Kind] = {"nearest_neighbor": "nearest", "linear": "linear"}
_COORDINATES = frozenset(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])


def resize(builder: Builder, op: Op) -> bool:
    """image.resize2d, nearest or linear."""
    mode, coordinates = str(op.attrs.method), str(op.attrs.coordinate_transformation_mode)
    rounding = str(op.attrs.rounding_method)
    if mode not in _KINDS or coordinates not in _COORDINATES or rounding not in _NEAREST:
        return False
    if str(op.attrs.layout) != "NCHW":
        return False
    view = _channel_last(builder, op)
    if view is None:
        return False
    shape = builder.graph.tensors[op.outputs[0]].shape
    out = builder.place(op.outputs[0], channel_last(4))
    rows, cols = (
        axis_table(
            view.shape[axis], shape[axis], None, _KINDS[mode], coordinates, _NEAREST[rounding]
        )
        for axis in (2, 3)
    )
    kernel = Resize(
        batch=shape[0],
        channels=shape[1],
        in_h=view.shape[2],
        in_w=view.shape[3],
        in_batch=view.strides[0],
        in_row=view.strides[2],
        in_col=view.strides[3],
        out_h=shape[2],
        out_w=shape[3],
        out_batch=out.strides[0],
        out_row=out.strides[2],
        out_col=out.strides[3],
        kind=_KINDS[mode],
        rows=rows,
        cols=cols,
    )
    tables = [builder.weight(table, "resize table") for table in kernel.tables()]
    builder.emit(kernel, [view, *tables], [out], op.nodes, "resize2d")
    builder.set(op.outputs[0], out)
    return True
