"""Fold a per-channel scale and shift that follow a convolution into its weights and bias.

This is how batch normalisation disappears: conv(x, w) * s + b = conv(x, w * s) + b.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from wasmgraph.importer.converters.static import constant, dtype_of, shape_of
from wasmgraph.optimise.rewriting import rewrite_main

# Which axis of the weights counts output channels, where there is one group.
_OUTPUT_AXIS = {
    "relax.nn.conv1d": 0,
    "relax.nn.conv2d": 0,
    "relax.nn.conv3d": 0,
    "relax.nn.conv2d_transpose": 1,
}


@dataclass(frozen=True)
class _Convolution:
    """A convolution with weights known now, and the bias gathered so far ([C], float64).

    `name` is that of the variable which held its result.
    """

    name: str
    call: Any
    weights: NDArray[Any]
    bias: NDArray[Any] | None
    axis: int
    scaled: bool = False


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        main = module["main"]
        uses = relax.analysis.udchain(main.body.blocks[0]) if main.body.blocks else {}
        self.readers = {var: len(users) for var, users in uses.items()}
        self.convolutions: dict[Any, _Convolution] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        value = self.visit_expr(binding.value)
        found = self._folded(binding, value)
        if found is None:
            super().visit_var_binding_(binding)
            return
        self.convolutions[binding.var] = found
        var = self.builder_.emit(_emit(self.builder_, found), name_hint=binding.var.name)
        self.set_var_remap(binding.var, var)

    def _folded(self, binding: Any, value: Any) -> _Convolution | None:
        name = getattr(getattr(value, "op", None), "name", "")
        if name in _OUTPUT_AXIS and isinstance(value.args[1], GenericConst):
            if _OUTPUT_AXIS[name] == 1 and int(value.attrs.groups) != 1:
                return None
            return _Convolution(
                binding.var.name, value, value.args[1].value.numpy(), None, _OUTPUT_AXIS[name]
            )
        if name in ("relax.add", "relax.multiply", "relax.subtract"):
            return self._with_affine(name, binding, value)
        return None

    def _with_affine(self, name: str, binding: Any, value: Any) -> _Convolution | None:
        """The convolution that an operator's operand is, with the operator folded in."""
        source, other = binding.value.args
        if name != "relax.subtract" and isinstance(source, GenericConst):
            source, other = other, source
        known = self.convolutions.get(source)
        if known is None or self.readers.get(source, 0) != 1:
            return None
        vector = _per_channel(other, known)
        if vector is None or dtype_of(value) != dtype_of(known.call):
            return None
        if name == "relax.multiply":
            return _scaled(known, vector)
        bias = 0.0 if known.bias is None else known.bias
        shifted = bias + vector if name == "relax.add" else bias - vector
        return replace(known, bias=shifted)


def _per_channel(value: Any, convolution: _Convolution) -> NDArray[Any] | None:
    """A constant that has one value per output channel (or one in all), as float64 [C]."""
    if not isinstance(value, GenericConst):
        return None
    rank = len(shape_of(convolution.call))
    channels = shape_of(convolution.call)[1]
    array = value.value.numpy()
    if array.ndim > rank:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if full.shape[1] not in (1, channels) or full.size != full.shape[1]:
        return None
    return np.broadcast_to(full.reshape(-1).astype(np.float64), (channels,))


def _scaled(convolution: _Convolution, scale: NDArray[Any]) -> _Convolution:
    weights = convolution.weights
    shape = [1] * weights.ndim
    shape[convolution.axis] = -1
    # Rounded once, when everything is folded in.
    scaled = weights.astype(np.float64) * scale.reshape(shape)
    bias = None if convolution.bias is None else convolution.bias * scale
    return replace(convolution, weights=scaled, bias=bias, scaled=True)


def _emit(builder: Any, convolution: _Convolution) -> Any:
    call = convolution.call
    weights = call.args[1]
    if convolution.scaled:
        weights = constant(convolution.weights, dtype_of(weights))
    result = relax.Call(call.op, [call.args[0], weights], call.attrs, call.ty_args)
    if convolution.bias is None:
        return result
    shape = (1, -1, *[1] * (len(shape_of(call)) - 2))
    bias = constant(convolution.bias.reshape(shape), dtype_of(call))
    return relax.op.add(builder.emit(result, name_hint=convolution.name), bias)


def fold_affine_into_convolution(module: Any) -> Any:
    """Fold constant per-channel multiplications and additions into the convolution they follow.

    Only where nobody else reads the convolution's own result.
    """
    return rewrite_main(module, _Folder(module))
