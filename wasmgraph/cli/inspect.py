"""`wasmgraph inspect`: what a model, a bundle or a graph is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasmgraph.cli.console import FILE, Terminal, common_options, example

if TYPE_CHECKING:
    from rich.console import Console

    from wasmgraph.inspection import Inspection


@click.command(
    epilog=example("wasmgraph inspect samples/digits/digits.onnx", "wasmgraph inspect digits.wasm")
)
@click.argument("file", type=FILE, metavar="FILE")
@common_options
def command(terminal: Terminal, file: Path) -> None:
    """Describe FILE without running it: an ONNX model, a bundle folder or a graph.

    Which of them it is, its content says, not its name. With -v, every step and its ONNX nodes.
    """
    from wasmgraph.inspection import inspect

    with terminal.stages():
        found = inspect(file)
    terminal.result(found.to_json(), lambda console: draw(console, found, terminal.verbose))


def draw(console: Console, found: Inspection, verbose: bool) -> None:
    """The tables: facts, tensors, kernels and, if verbose, steps."""
    from wasmgraph.cli import tables
    from wasmgraph.runtime.base import printable

    console.print(tables.facts(_facts(found)), "", tables.tensors(found.inputs, found.outputs))
    if found.calls:
        operators = tables.plain_table("operator", "nodes", right=["nodes"])
        for name, count in found.calls.items():
            operators.add_row(printable(name), str(count))
        console.print("", operators)
    if found.kernels:
        kernels = tables.plain_table("kernel", "operators", "calls", right=["calls"])
        for kernel in found.kernels:
            kernels.add_row(*map(printable, (kernel.symbol, kernel.description)), str(kernel.calls))
        console.print("", kernels)
    if found.steps and verbose:
        steps = tables.plain_table("step", "kernel", "ONNX nodes", right=["step"])
        for index, step in enumerate(found.steps):
            symbol = found.kernels[step.kernel].symbol
            steps.add_row(str(index), *map(printable, (symbol, ", ".join(step.nodes))))
        console.print("", steps)


def _facts(found: Inspection) -> dict[str, str]:
    """One line each; what this kind of file does not have is left out."""
    from wasmgraph.cli.tables import listed, size

    source = found.source if found.opset is None else f"{found.source}, opset {found.opset}"
    abi = "" if found.abi is None else f" (ABI {found.abi})"
    rows = {
        found.kind: f"{found.path}{abi}",
        "source": source if found.kind != "model" else f"opset {found.opset}",
        "sha256": found.sha256,
        "made by": listed(found.producer),
        "SIMD": found.simd or "",
        "sizes": listed({part: size(n) for part, n in found.sizes.items()}),
        "weights": _weights(found),
        "memory": _memory(found),
        "operators": ", ".join(f"{n} {op}" for op, n in found.operators.items()),
        **_kernels(found),
        "shapes": found.openness,
        "imports": _imports(found),
        "exports": ", ".join(found.exports),
    }
    return {name: value for name, value in rows.items() if value}


def _kernels(found: Inspection) -> dict[str, str]:
    from wasmgraph.cli.tables import kernels

    if found.calls:
        return kernels(len(found.calls), sum(found.calls.values()), dynamic=True)
    return kernels(len(found.kernels), len(found.steps)) if found.kernels else {}


def _weights(found: Inspection) -> str:
    """How they are stored, where that is not as float32."""
    from wasmgraph.cli.tables import size

    how = [f"rounded to {found.rounded}"] if found.rounded else []
    if found.memory is not None and found.wide_weights > found.memory.weights:
        how.append(f"{size(found.wide_weights)} if they were float32")
    return ", ".join(how)


def _memory(found: Inspection) -> str:
    from wasmgraph.cli.tables import listed, size

    plan = found.memory
    if plan is None:
        return ""
    parts = {"weights": plan.weights, "arena": plan.arena, "inputs and outputs": plan.io}
    text = listed({part: size(n) for part, n in parts.items()})
    if plan.intermediates and plan.intermediate_nbytes is not None:
        text += f"; {plan.intermediates} intermediate tensors"
        text += f" of {size(plan.intermediate_nbytes)} share the arena"
    if plan.linear_memory is not None:
        text += f"; linear memory {size(plan.linear_memory)}"
        text += " for good" if plan.is_fixed else ""
    return text


def _imports(found: Inspection) -> str:
    """By module, so that its name stands there once."""
    modules: dict[str, list[str]] = {}
    for item in found.imports:
        module, _, name = item.partition(".")
        modules.setdefault(module, []).append(name)
    return "; ".join(f"{module}: {', '.join(names)}" for module, names in modules.items())
