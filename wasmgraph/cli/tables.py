"""The tables that several commands draw: tensors, byte sizes, stage times, agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wasmgraph.runtime.base import printable

if TYPE_CHECKING:
    from wasmgraph.compiler import CompileReport
    from wasmgraph.measure.memory import GuestMemory
    from wasmgraph.verification import OutputAgreement, VerifyReport


class TensorLike(Protocol):
    """Anything with a name, a dtype and a shape."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[Any, ...]: ...


def size(nbytes: int) -> str:
    """Bytes for a person: "117 KB", "4.9 MB" (powers of ten, as file managers show them)."""
    value = float(nbytes)
    for unit in ("B", "KB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def dims(shape: Iterable[int | str]) -> str:
    """A shape for a person: "1x3x224x224", or "scalar"."""
    return "x".join(map(str, shape)) or "scalar"


def facts(rows: Mapping[str, RenderableType]) -> Table:
    """Two columns: what, and its value."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, printable(value) if isinstance(value, str) else value)
    return table


def tensors(inputs: Iterable[TensorLike], outputs: Iterable[TensorLike]) -> Table:
    """One row per input and output."""
    table = plain_table("", "name", "dtype", "shape")
    for direction, group in (("input", inputs), ("output", outputs)):
        for tensor in group:
            table.add_row(
                direction, printable(tensor.name), tensor.dtype, printable(dims(tensor.shape))
            )
    return table


def plain_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table in the house's look; the columns named in `right` hold figures."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    numeric = set(right)
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    return table


def listed(amounts: Mapping[str, str]) -> str:
    """Named amounts on one line: "code 41 KB, weights 117 KB"."""
    return ", ".join(f"{name} {amount}".strip() for name, amount in amounts.items())


def sizes(parts: Mapping[str, int]) -> str:
    """The parts of a graph on one line; its file's size stands elsewhere."""
    shown = {name: size(parts[name]) for name in ("code", "weights", "arena", "io")}
    wide = parts.get("wide_weights", 0)
    if wide > parts["weights"]:
        shown["weights"] += f" ({size(wide)} as float32)"
    return listed(shown)


def guest_memory(guest: GuestMemory) -> str:
    """A graph's linear memory by what it holds, on one line."""
    parts = {name: size(getattr(guest, name)) for name in ("weights", "io", "arena", "rest")}
    return f"{size(guest.total)}: {listed(parts)}" + (", and grows" if guest.grows else "")


def written(path: Path, nbytes: int) -> Text:
    """A file that was written, and its size."""
    return Text.assemble((printable(str(path)), "green"), f"  {size(nbytes)}")


def kernels(count: int, steps: int, *, dynamic: bool = False) -> dict[str, str]:
    """A row that says how many kernels there are, and how many calls a run makes; of a dynamic
    graph how many nodes, and how many operators they call."""
    if dynamic:
        return {"nodes": f"{steps} of {count} operator{'' if count == 1 else 's'}"}
    return {"kernels": f"{count} in {steps} step{'' if steps == 1 else 's'}"}


def compile_summary(report: CompileReport) -> RenderableType:
    """What `wasmgraph compile` says when it is done."""
    times = {name: f"{s:.2f} s" for name, s in report.seconds.items()}
    total = sum(report.seconds.values())
    rows: dict[str, RenderableType] = {
        "written": written(report.path, report.sizes["file"]),
        "sizes": sizes(report.sizes),
        **kernels(report.kernels, report.steps, dynamic=report.dynamic),
        **({"shapes": report.openness} if report.openness else {}),
        "time": f"{total:.2f} s: {listed(times)}",
        "verified": agreement(report.verification),
        **rounding_cost(report.verification),
        **rounding_notes(report.verification.outputs if report.verification else ()),
    }
    return Group(facts(rows), "", tensors(report.inputs, report.outputs))


def agreement(report: VerifyReport | None) -> str:
    """How the graph compares with onnxruntime, on one line."""
    if report is None:
        return "no"
    worst = max((output.max_abs for output in report.outputs), default=0.0)
    ulp = max((output.max_ulp for output in report.outputs), default=0)
    verdict = "agrees with onnxruntime" if report.agrees else "disagrees with onnxruntime"
    if report.rounded is not None:
        verdict += f" on weights rounded to {report.rounded}"
    return f"{verdict}: at most {worst:.2g} absolute, {ulp} ULP apart (seed {report.seed})"


def rounding_notes(outputs: Iterable[OutputAgreement]) -> dict[str, str]:
    """Where tolerances did not suffice: what rounding explains, as a row of facts."""
    notes = [f"{printable(o.name)!r}: {o.rounding_note}" for o in outputs if o.rounding]
    return {"tolerance": "; ".join(notes)} if notes else {}


def rounding_cost(report: VerifyReport | None) -> dict[str, str]:
    """What rounded weights cost, as a row of facts: distances from the model itself."""
    if report is None or not report.cost:
        return {}
    absolute = max(output.max_abs for output in report.cost)
    relative = max(output.max_rel for output in report.cost)
    largest = max(output.largest for output in report.cost)
    cost = f"at most {absolute:.2g} absolute, {relative:.2g} relative"
    return {
        "rounding": f"{cost} from the model's own outputs, the largest of which is {largest:.2g}"
    }
