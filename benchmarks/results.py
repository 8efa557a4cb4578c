"""What a benchmark finds out: records that `session` fills, `targets` and `report` read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wasmgraph.measure.latency import Latency


@dataclass(frozen=True)
class Shipped:
    """Bytes to ship: as they are, after gzip, and after brotli (None without Node)."""

    raw: int
    gzip: int
    brotli: int | None

    def __add__(self, other: Shipped) -> Shipped:
        both = self.brotli is not None and other.brotli is not None
        brotli = (self.brotli or 0) + (other.brotli or 0) if both else None
        return Shipped(self.raw + other.raw, self.gzip + other.gzip, brotli)


@dataclass(frozen=True)
class SystemResult:
    """One system with one model; times in milliseconds, memory in bytes.

    Attributes:
        problem: Why it was not timed, or None.
        imported: Importing the runtime (Python or JavaScript code).
        loaded: From the file on disk to a model ready to run; of wasmgraph with native code cached.
        first: The first inference.
        cold_loaded: Of wasmgraph under Wasmtime: with nothing cached.
        latency: Of the timed runs.
        cpu_share: CPU time over wall time meanwhile. A single thread that has its core to itself
            gets 1; much less means that other work disturbed the figures.
        peak: The process' peak resident memory.
        growth: How far that is above the process before it imported the runtime.
        guest: Of wasmgraph: bytes of linear memory by what they hold; at least "total".
        max_abs: Largest difference of an output's element from native onnxruntime's.
    """

    problem: str | None = None
    imported: float | None = None
    loaded: float | None = None
    first: float | None = None
    cold_loaded: float | None = None
    latency: Latency | None = None
    cpu_share: float | None = None
    peak: int | None = None
    growth: int | None = None
    guest: Mapping[str, int | bool] | None = None
    max_abs: float | None = None

    @property
    def load_and_first(self) -> float | None:
        """From the file on disk to the first output, without importing the runtime."""
        if self.loaded is None or self.first is None:
            return None
        return self.loaded + self.first


@dataclass(frozen=True)
class ModelResult:
    """Everything about one model.

    Attributes:
        name: The model's.
        inputs: Shapes by input.
        problem: Why nothing could be measured, or None.
        flops: Of direct convolutions and matrix products, or None where not known.
        limit: FLOP/s of one thread that the multiply-add loop reached meanwhile (the median).
        thread_gain: How many times as quickly two threads ended that loop as one did (the median).
        compile_seconds, compile_stages: Wall time; None where it cannot be compiled.
        compile_kept: Whether the graph is one of an earlier run.
        sizes: The graph's parts in bytes.
        shipped: Bytes to ship of "wasmgraph" and "ort-web".
        systems: Results by `System.key`.
        load_average: The system's, of the last minute, when the model was begun.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    problem: str | None = None
    flops: int | None = None
    limit: float | None = None
    thread_gain: float | None = None
    compile_seconds: float | None = None
    compile_stages: Mapping[str, float] | None = None
    compile_kept: bool = False
    sizes: Mapping[str, int] | None = None
    shipped: Mapping[str, Shipped] = field(default_factory=dict)
    systems: Mapping[str, SystemResult] = field(default_factory=dict)
    load_average: float | None = None

    def system(self, key: str) -> SystemResult:
        """A system's result; an empty one where it was not measured."""
        return self.systems.get(key, SystemResult())

    def median(self, key: str) -> float | None:
        """A system's median in milliseconds, or None."""
        latency = self.system(key).latency
        return None if latency is None else latency.median

    def fastest(self, key: str) -> float | None:
        """A system's fastest run in milliseconds, or None."""
        latency = self.system(key).latency
        return None if latency is None else latency.minimum

    def speedup(self, slower: str, faster: str) -> float | None:
        """How many times the median of `faster` goes into that of `slower`."""
        return ratio(self.median(slower), self.median(faster))

    def fastest_speedup(self, slower: str, faster: str) -> float | None:
        """As `speedup`, of the fastest runs."""
        return ratio(self.fastest(slower), self.fastest(faster))

    def share_of_limit(self) -> float | None:
        """The share of one thread's limit that our median reaches, 1 being all of it."""
        return self._share_of_limit(self.median("wasmgraph-1"))

    def fastest_share_of_limit(self) -> float | None:
        """The same of our fastest run."""
        return self._share_of_limit(self.fastest("wasmgraph-1"))

    def _share_of_limit(self, milliseconds: float | None) -> float | None:
        if self.flops is None or milliseconds is None:
            return None
        return ratio(self.flops / (milliseconds / 1e3), self.limit)

    @property
    def guest_total(self) -> int | None:
        """The graph's linear memory in bytes: after the runs in Node, else what it begins with."""
        for key in ("wasmgraph-node-1", "wasmgraph-1"):
            guest = self.system(key).guest
            if guest is not None:
                return int(guest["total"])
        return None

    @property
    def guest_beyond(self) -> int | None:
        """What of it is neither weights nor inputs and outputs."""
        if self.guest_total is None or self.sizes is None:
            return None
        return self.guest_total - self.sizes["weights"] - self.sizes["io"]

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`: the fields, and what is computed from them."""
        fields = asdict(self)
        for key, system in self.systems.items():
            fields["systems"][key]["load_and_first"] = system.load_and_first
        fields["share_of_limit"] = self.share_of_limit()
        fields["fastest_share_of_limit"] = self.fastest_share_of_limit()
        fields["guest_total"] = self.guest_total
        fields["guest_beyond"] = self.guest_beyond
        fields["wasmgraph_1_over_2"] = self.speedup("wasmgraph-1", "wasmgraph-2")
        for threads in (1, 2):
            fields[f"ort_web_over_wasmgraph_{threads}"] = self.speedup(
                f"ort-web-{threads}", f"wasmgraph-{threads}"
            )
        return fields


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b, or None where either is not known."""
    return None if a is None or b is None or b == 0 else a / b


def geometric_mean(values: Iterable[float]) -> float | None:
    """Of positive numbers; None of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def known(
    results: Iterable[ModelResult], figure: Callable[[ModelResult], float | None]
) -> dict[str, float]:
    """A figure by model, for the models that have it."""
    found = {result.name: figure(result) for result in results}
    return {name: value for name, value in found.items() if value is not None}
