"""A model written with onnxscript, which needs its functions in a file of their own.

No `from __future__ import annotations`: onnxscript evaluates the annotations.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import FLOAT, opset18, script
from onnxscript.values import Opset

own = Opset("example.org.own", 1)


@script(own, default_opset=opset18)
def leaky(x, slope: float):
    """The larger one of x and a fraction of it."""
    return opset18.Max(x, opset18.Mul(x, slope))


@script(own, default_opset=opset18)
def standardised(x):
    """Every row with mean 0 and deviation 1."""
    last = opset18.Constant(value_ints=[-1])
    centred = x - opset18.ReduceMean(x, last)
    deviation = opset18.Sqrt(opset18.ReduceMean(centred * centred, last))
    return centred / deviation


@script(default_opset=opset18)
def network(x: FLOAT["n", 8]) -> FLOAT["n", 8]:  # noqa: F821
    """What `expected` computes."""
    hidden = leaky(standardised(x), slope=0.25)
    return opset18.Softmax(hidden + opset18.Relu(hidden), axis=-1)


def model() -> onnx.ModelProto:
    """The model, with its functions in it."""
    return network.to_model_proto()


def expected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same with numpy."""
    centred = x - x.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))
    hidden = np.maximum(normal, 0.25 * normal)
    powers = np.exp(hidden + np.maximum(hidden, 0))
    return powers / powers.sum(axis=1, keepdims=True)
