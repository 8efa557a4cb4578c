"""Small graphs written by hand: honest ones, and hostile ones that the linker would never write.

Every graph has the exports of the ABI and metadata; a test replaces what it wants to be different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import wasmtime

from wasmgraph.metadata import KernelInfo, Metadata, ModelInfo, Sizes, TensorInfo, dump_metadata
from wasmgraph.wasmfile import METADATA_SECTION, add_custom_section

X = TensorInfo("x", "float32", (4,))
Y = TensorInfo("y", "float32", (4,))

FUNCTIONS = {
    "_start": "(func $_start)",
    "wg_abi": "(func $wg_abi (result i32) i32.const 1)",
    "wg_input": "(func $wg_input (param i32 i32 i32) (result i32) i32.const 1024)",
    # y = x + x
    "wg_run": """(func $wg_run (result i32)
        (v128.store (i32.const 2048) (f32x4.add
            (v128.load (i32.const 1024)) (v128.load (i32.const 1024))))
        i32.const 0)""",
    "wg_output": "(func $wg_output (param i32) (result i32) i32.const 2048)",
    "wg_output_shape": "(func $wg_output_shape (param i32 i32) (result i32) i32.const 1)",
    "wg_alloc": "(func $wg_alloc (param i32) (result i32) i32.const 4096)",
    "wg_free": "(func $wg_free (param i32 i32))",
    "wg_error": "(func $wg_error (result i32) i32.const 16)",
    "wg_error_len": "(func $wg_error_len (result i32) i32.const 9)",
}
LOOPS_FOREVER = "(func $wg_run (result i32) (loop $again (br $again)) i32.const 0)"
FAILS = "(func $wg_run (result i32) i32.const 1)"


def returning(name: str, value: int | str) -> str:
    """The function `name` with a body that is one constant."""
    head = FUNCTIONS[name].split("(result i32)")[0]
    return f"{head}(result i32) i32.const {value})"


@dataclass(frozen=True)
class WatGraph:
    """A graph in text form.

    Attributes:
        functions: Definitions that replace the honest ones, by export name; None leaves one out.
        rest: More module fields.
        imports: Import fields, which stand first.
        memory: The memory field.
        inputs, outputs: As in the metadata.
        kernels: As in the metadata.
    """

    functions: Mapping[str, str | None] = field(default_factory=dict)
    rest: str = ""
    imports: str = ""
    memory: str = '(memory (export "memory") 1)'
    inputs: tuple[TensorInfo, ...] = (X,)
    outputs: tuple[TensorInfo, ...] = (Y,)
    kernels: tuple[KernelInfo, ...] = ()

    def binary(self) -> bytes:
        """The `.wasm`, metadata included."""
        return add_custom_section(self.module(), METADATA_SECTION, dump_metadata(self.metadata()))

    def module(self) -> bytes:
        """The `.wasm` without metadata."""
        functions = {**FUNCTIONS, **self.functions}
        defined = {name: text for name, text in functions.items() if text is not None}
        exports = "".join(f'(export "{name}" (func ${name}))' for name in defined)
        head = ["(module", self.imports, self.memory, '(data (i32.const 16) "it failed")']
        text = "\n".join([*head, *defined.values(), exports, self.rest, ")"])
        return bytes(wasmtime.wat2wasm(text))

    def metadata(self) -> Metadata:
        """What the graph says of itself."""
        return Metadata(
            abi=1,
            producer={"tests": "0"},
            model=ModelInfo("hand-written", "0" * 64, 17, {}),
            simd="simd128",
            threads=False,
            inputs=self.inputs,
            outputs=self.outputs,
            sizes=Sizes(0, 0, 0, 0),
            kernels=self.kernels,
            steps=(),
        )

    def write(self, folder: Path) -> Path:
        """Write the `.wasm`; its path."""
        path = folder / "graph.wasm"
        path.write_bytes(self.binary())
        return path
