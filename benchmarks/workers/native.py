"""Native onnxruntime on the CPU, with its default options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.tensorfiles import Array
from benchmarks.workers.serve import Create, Worker, serve


def imports() -> Create:
    """Import onnxruntime."""
    import onnxruntime

    class System:
        def __init__(self, session: Any) -> None:
            self.session = session
            self.names = [output.name for output in session.get_outputs()]

        def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return dict(zip(self.names, self.session.run(self.names, dict(inputs)), strict=True))

        def details(self, inputs: Mapping[str, Array]) -> dict[str, Any]:  # noqa: ARG002
            return {}

    def create(model: str, threads: int) -> System:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        return System(
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        )

    return create


if __name__ == "__main__":
    serve(Worker(imports))
