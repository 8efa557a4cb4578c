"""The machine's limits: the multiply-add loop of `wasmgraph.measure.limit`, told like a system."""

from __future__ import annotations

from typing import Any

from benchmarks.workers.serve import serve


class Limit:
    """Answers `measure` with FLOP/s instead of times."""

    def measure(self, seconds: float) -> dict[str, Any]:
        """Run the loop for `seconds`."""
        from wasmgraph.measure.limit import measure_limit

        return {"flops_per_second": measure_limit(seconds)}

    def measure_gain(self, seconds: float, threads: int) -> dict[str, Any]:
        """Run it on one thread and on several in turn, for `seconds`."""
        from wasmgraph.measure.limit import measure_thread_gain

        return {"gain": measure_thread_gain(seconds, threads)}


if __name__ == "__main__":
    serve(Limit())
