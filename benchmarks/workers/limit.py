"""The machine's limit: the multiply-add loop of `wasmgraph.measure.limit`, told like a system."""

from __future__ import annotations

from typing import Any

from benchmarks.workers.serve import serve


class Limit:
    """Answers `measure` with FLOP/s instead of times."""

    def measure(self, seconds: float) -> dict[str, Any]:
        """Run the loop for `seconds`."""
        from wasmgraph.measure.limit import measure_limit

        return {"flops_per_second": measure_limit(seconds)}


if __name__ == "__main__":
    serve(Limit())
