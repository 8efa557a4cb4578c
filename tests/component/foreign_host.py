"""A host that knows nothing of wasmgraph but its WIT: wasmtime-py's own values, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import wasmtime
from wasmtime import component

from tests.onnx_models import Array
from wasmgraph.component.interface import DTYPES, MODEL


def tensor(
    name: str, array: Array, *, shape: Sequence[int] | None = None, nbytes: int | None = None
) -> SimpleNamespace:
    """A `named-tensor`, whose shape and number of bytes may lie."""
    content = SimpleNamespace(
        dtype=DTYPES[array.dtype.name],
        shape=list(array.shape if shape is None else shape),
        bytes=array.tobytes()[:nbytes],
    )
    return SimpleNamespace(name=name, tensor=content)


def floats(given: Any) -> Array:
    """The elements of a `named-tensor` of float32, without their shape."""
    assert given.tensor.dtype == "float32"
    return np.frombuffer(given.tensor.bytes, "<f4")


class ForeignHost:
    """One instance of a component."""

    def __init__(self, path: Path) -> None:
        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        compiled = component.Component(engine, path.read_bytes())
        self._instance = component.Linker(engine).instantiate(self._store, compiled)

    def describe(self) -> Any:
        """What `describe` returns."""
        return self._function("describe")(self._store)

    def run(self, *tensors: SimpleNamespace) -> Any:
        """What `run` returns: a list of `named-tensor`, or the error."""
        return self._function("run")(self._store, list(tensors))

    def _function(self, name: str) -> component.Func:
        model = self._instance.get_export_index(self._store, MODEL)
        place = self._instance.get_export_index(self._store, name, model)
        assert place is not None
        found = self._instance.get_func(self._store, place)
        assert found is not None
        return found
