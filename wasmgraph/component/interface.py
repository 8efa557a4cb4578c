"""What toolchain/wit/inference.wit says, as component types in text form.

The types come in the order in which they need each other; `{name}` stands for an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping

from wasmgraph.bundle import SIMD_LEVELS
from wasmgraph.metadata import DTYPE_NBYTES

MODEL = "wasmgraph:inference/model@0.1.0"
"""The interface that a component exports."""

DESCRIBE, RUN = f"{MODEL}#describe", f"{MODEL}#run"
"""The core module's functions, named as tools for components expect it."""

REALLOC = "cabi_realloc"
OUT_OF_MEMORY = "wasmgraph_out_of_memory"
"""The function in which a component traps where it has no memory left."""

DTYPES = {dtype: dtype.replace("_", "-") for dtype in DTYPE_NBYTES}
"""The enum's names by ours, in its order."""

ERRORS = (
    "load-error",
    "input-error",
    "inference-error",
    "memory-limit-exceeded",
    "run-timeout",
)


def _quoted(names: Mapping[str, str] | tuple[str, ...]) -> str:
    values = names.values() if isinstance(names, Mapping) else names
    return " ".join(f'"{name}"' for name in values)


_CASES = " ".join(f'(case "{name}" string)' for name in ERRORS)

TYPES: Mapping[str, str] = {
    "dtype": f"(enum {_quoted(DTYPES)})",
    "tensor": '(record (field "dtype" {dtype}) (field "shape" (list u32))'
    ' (field "bytes" (list u8)))',
    "named-tensor": '(record (field "name" string) (field "tensor" {tensor}))',
    "extent": '(variant (case "fixed" u32) (case "open" string))',
    "tensor-spec": '(record (field "name" string) (field "dtype" {dtype})'
    ' (field "shape" (option (list {extent}))))',
    "simd": f"(enum {_quoted(SIMD_LEVELS)})",
    "source": '(record (field "name" string) (field "sha256" string) (field "opset" u32))',
    "metadata": '(record (field "producer" (list (tuple string string))) (field "model" {source})'
    ' (field "simd" {simd}) (field "inputs" (list {tensor-spec}))'
    ' (field "outputs" (list {tensor-spec})))',
    "error": f"(variant {_CASES})",
}

FUNCTIONS: Mapping[str, str] = {
    "describe": "(func (result {metadata}))",
    "run": '(func (param "inputs" (list {named-tensor}))'
    " (result (result (list {named-tensor}) (error {error}))))",
}
