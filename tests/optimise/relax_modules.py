"""Relax modules of tiny ONNX models, and what is in them."""

from __future__ import annotations

from typing import Any

from tests.onnx_models import make_model
from wasmgraph.importer import ImportedModel, import_model, load_model


def imported(*args: Any, **kwargs: Any) -> ImportedModel:
    """The model that `make_model` makes, imported."""
    return import_model(load_model(make_model(*args, **kwargs)))


def module(*args: Any, **kwargs: Any) -> Any:
    """Its Relax module."""
    return imported(*args, **kwargs).graph.module


def bindings(mod: Any) -> list[Any]:
    """The bindings of `main`, in order."""
    return [binding for block in mod["main"].body.blocks for binding in block.bindings]


def operators(mod: Any) -> list[str]:
    """The operators of `main`, in order, without "relax."."""
    names = [getattr(getattr(b.value, "op", None), "name", "") for b in bindings(mod)]
    return [name.removeprefix("relax.") for name in names if name]
