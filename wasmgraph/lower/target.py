"""The TVM target of each SIMD level."""

from __future__ import annotations

from typing import Any

from tvm.target import Target

from wasmgraph.bundle import SimdLevel

# bulk-memory turns copies into memory.copy; every engine that has SIMD has it too.
_FEATURES: dict[SimdLevel, tuple[str, ...]] = {
    "none": ("+bulk-memory",),
    "simd128": ("+simd128", "+bulk-memory"),
    "relaxed": ("+simd128", "+relaxed-simd", "+bulk-memory"),
}


def target_for(simd: SimdLevel) -> Any:
    """wasm32 with the level's features, one core."""
    return Target(
        {
            "kind": "llvm",
            "mtriple": "wasm32-unknown-unknown",
            "mattr": list(_FEATURES[simd]),
            "num-cores": 1,
            "vector-width": 128,
        }
    )
