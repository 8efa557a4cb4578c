"""What a case is made of: its number decides which original is damaged, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import wasmgraph
from tests.fuzz.mutations import INTEGERS, TEXTS, Rng, damage_bytes, damage_model, random_bytes

Kind = Literal["model", "bundle", "graph"]
KINDS: tuple[Kind, ...] = ("model", "bundle", "graph")
_SHARES = {"model": 0.9, "graph": 0.07, "bundle": 0.03}
"""Most find their way into the importer; a bundle takes a linker's time."""

MODEL = "model.onnx"
GRAPH = "graph.wasm"
BUNDLE = ("graph.json", "graph.params", "graph.o", "tvm.o")


@dataclass(frozen=True)
class Case:
    """One damaged thing.

    Attributes:
        seed, number: Together they make it.
        kind: What it is.
        damage: From what it was made and how, for people.
        files: By name: `MODEL`, `GRAPH`, or those of `BUNDLE`.
    """

    seed: int
    number: int
    kind: Kind
    damage: str
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Its files, into a folder that is there."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


@dataclass(frozen=True)
class Originals:
    """The sound ones. `models` by name; the files of one bundle, and of the graph made of it."""

    models: Mapping[str, bytes]
    bundle: Mapping[str, bytes]
    graph: bytes


def make_originals(models: Mapping[str, bytes], folder: Path) -> Originals:
    """Compile the model "digits" for the bundle and the graph; `folder` is for them."""
    (folder / MODEL).write_bytes(models["digits"])
    bundle, graph = folder / "bundle", folder / GRAPH
    wasmgraph.compile(folder / MODEL, graph, verify=False, bundle_dir=bundle)
    return Originals(
        models, {path.name: path.read_bytes() for path in bundle.iterdir()}, graph.read_bytes()
    )


def make_case(seed: int, number: int, originals: Originals, only: Kind | None = None) -> Case:
    """The case of that number; `only` has every number make one of that kind."""
    rng = np.random.default_rng([seed, number])
    drawn: Kind = KINDS[int(rng.choice(len(KINDS), p=[_SHARES[kind] for kind in KINDS]))]
    kind = only or drawn
    if kind == "model":
        damage, data = _damaged_model(originals.models, rng)
        return Case(seed, number, kind, damage, {MODEL: data})
    if kind == "graph":
        return Case(seed, number, kind, "bytes", {GRAPH: damage_bytes(originals.graph, rng)})
    name = sorted(originals.bundle)[int(rng.integers(len(originals.bundle)))]
    if name == "graph.json" and rng.random() < 0.8:
        damaged, how = _damaged_json(originals.bundle[name], rng), "fields"
    else:
        damaged, how = damage_bytes(originals.bundle[name], rng), "bytes"
    return Case(seed, number, kind, f"{how} of {name}", {**originals.bundle, name: damaged})


def _damaged_model(models: Mapping[str, bytes], rng: Rng) -> tuple[str, bytes]:
    name = sorted(models)[int(rng.integers(len(models)))]
    choice = rng.random()
    if choice < 0.03:
        return "random bytes", random_bytes(rng)
    if choice < 0.25:
        return f"bytes of {name}", damage_bytes(models[name], rng)
    return f"fields of {name}", damage_model(models[name], rng)


def _damaged_json(data: bytes, rng: Rng) -> bytes:
    """Change, remove or repeat values anywhere in the description."""
    root = json.loads(data)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        holder: Any = root
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = keys[int(rng.integers(len(keys)))]
            child = holder[key]
            if isinstance(child, (dict, list)) and rng.random() < 0.85:
                holder = child
                continue
            match rng.integers(4):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, list):
                    holder.insert(key, child)
                case _:
                    holder[key] = _odd_value(child, rng)
            break
    return json.dumps(root).encode()


def _odd_value(before: Any, rng: Rng) -> Any:
    if type(before) is int and rng.random() < 0.4:
        return before + int(rng.choice([-64, -1, 1, 64]))
    odd = (None, True, [], {}, 0.5, 1e300, *INTEGERS, *TEXTS)
    return odd[int(rng.integers(len(odd)))]
