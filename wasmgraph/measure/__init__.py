"""Measuring: latency and its statistics, memory, load times, FLOPs, and the engine's own limit.

For `wasmgraph bench` and the comparison with other systems in `benchmarks/`. Nothing here compiles
models or draws.
"""

from wasmgraph.measure.engines import EngineMeasurement, EnginesMeasurement, measure_engines
from wasmgraph.measure.flops import count_flops
from wasmgraph.measure.graph import Measurement, measure_graph
from wasmgraph.measure.latency import Latency, time_runs
from wasmgraph.measure.limit import measure_limit

__all__ = [
    "EngineMeasurement",
    "EnginesMeasurement",
    "Latency",
    "Measurement",
    "count_flops",
    "measure_engines",
    "measure_graph",
    "measure_limit",
    "time_runs",
]
