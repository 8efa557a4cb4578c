"""Tiny real bundles for tests: their kernels are compiled by rustc, so that no TVM is needed.

Each function returns the same bundle every time; the object code is compiled once per process.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from wasmgraph.bundle import (
    Batch,
    Buffer,
    Bundle,
    Constant,
    Graph,
    Kernel,
    Share,
    Source,
    Step,
    Tensor,
)
from wasmgraph.link import find_rust

SCALE_WEIGHTS = np.array([1.0, -2.0, 0.5, 4.0], dtype=np.float32)

KERNELS = """
#![no_std]
extern "C" {
    fn TVMBackendAllocWorkspace(ty: i32, id: i32, n: u64, code: i32, bits: i32) -> *mut u8;
    fn TVMBackendFreeWorkspace(ty: i32, id: i32, block: *mut u8) -> i32;
    fn TVMBackendParallelLaunch(
        task: unsafe extern "C" fn(i32, *mut Group, *mut f32) -> i32, data: *mut f32, n: i32,
    ) -> i32;
    #[cfg(missing)]
    fn nobody_defines_this(out: *mut f32);
}
#[repr(C)]
pub struct Group { sync: *mut u8, tasks: i32 }

#[no_mangle]
pub unsafe extern "C" fn add(a: *const f32, b: *const f32, out: *mut f32) -> i32 {
    for i in 0..6 { *out.add(i) = *a.add(i) + *b.add(i); }
    0
}
#[no_mangle]
pub unsafe extern "C" fn scale(x: *const f32, weights: *const f32, out: *mut f32) -> i32 {
    for i in 0..4 { *out.add(i) = *x.add(i) * *weights.add(i); }
    0
}
#[no_mangle]
pub unsafe extern "C" fn fail(x: *const f32, _out: *mut f32) -> i32 { *x as i32 }
#[no_mangle]
pub unsafe extern "C" fn spin(x: *const f32, out: *mut f32) -> i32 {
    loop { out.write_volatile(x.read_volatile()); }
}
#[no_mangle]
pub unsafe extern "C" fn trap(_x: *const f32, _out: *mut f32) -> i32 {
    core::arch::wasm32::unreachable()
}
/// Takes x[0] blocks of 1 MiB, touches each, gives them back; out[i] is the sum of their
/// addresses modulo 64.
#[no_mangle]
pub unsafe extern "C" fn hoard(x: *const f32, out: *mut f32) -> i32 {
    let mut last: *mut u8 = core::ptr::null_mut();
    let mut misaligned = 0;
    for _ in 0..*x as i32 {
        let block = TVMBackendAllocWorkspace(1, 0, 1 << 20, 2, 32);
        if block.is_null() { return -1; }
        misaligned += block as usize % 64;
        *(block as *mut *mut u8) = last;
        last = block;
    }
    while !last.is_null() {
        let before = *(last as *mut *mut u8);
        if TVMBackendFreeWorkspace(1, 0, last) != 0 { return -2; }
        last = before;
    }
    for i in 0..4 { *out.add(i) = misaligned as f32; }
    0
}
unsafe extern "C" fn task(id: i32, group: *mut Group, out: *mut f32) -> i32 {
    *out.add(id as usize) = ((*group).tasks * 10 + id) as f32;
    0
}
#[no_mangle]
pub unsafe extern "C" fn parallel(_x: *const f32, out: *mut f32) -> i32 {
    TVMBackendParallelLaunch(task, out, 4)
}
#[cfg(missing)]
#[no_mangle]
pub unsafe extern "C" fn orphan(_x: *const f32, out: *mut f32) -> i32 {
    nobody_defines_this(out);
    0
}
"""


def object_code(*cfg: str) -> bytes:
    """`KERNELS` as a wasm object."""
    return compiled(KERNELS, tuple(f"--cfg={name}" for name in cfg))


@lru_cache
def compiled(source: str, options: tuple[str, ...] = ()) -> bytes:
    """Rust without its standard library as a wasm object."""
    rust = find_rust()
    with tempfile.TemporaryDirectory() as folder:
        file, target = Path(folder, "kernels.rs"), Path(folder, "kernels.o")
        file.write_text(source)
        subprocess.run(
            [
                str(rust.rustc),
                *("--edition=2021", "--crate-name=kernels", "--crate-type=lib", "--emit=obj"),
                *("-Copt-level=2", "-Cpanic=abort", "-Ccodegen-units=1", "--cap-lints=allow"),
                f"--target={rust.target}",
                *options,
                *("-o", str(target), str(file)),
            ],
            check=True,
            cwd=folder,
        )
        return target.read_bytes()


def add_bundle() -> Bundle:
    """Float32 inputs "a" and "b" of shape [2, 3]; output "sum" is a + b."""
    a, b, total = Buffer("io", 0, 24), Buffer("io", 64, 24), Buffer("io", 128, 24)
    graph = make_graph(
        inputs=(Tensor("a", "float32", (2, 3), a), Tensor("b", "float32", (2, 3), b)),
        outputs=(Tensor("sum", "float32", (2, 3), total),),
        kernels=(Kernel("add", 3, "add"),),
        steps=(Step(0, (a, b, total), ("Add#0",), stage=0),),
        operators={"Add": 1},
        io_nbytes=192,
    )
    return Bundle(graph, object_code(), b"")


def scale_bundle() -> Bundle:
    """Float32 input "x" of shape [4]; output "y" is x * `SCALE_WEIGHTS`."""
    x, y, weights = Buffer("io", 0, 16), Buffer("io", 64, 16), Buffer("params", 0, 16)
    graph = make_graph(
        inputs=(Tensor("x", "float32", (4,), x),),
        outputs=(Tensor("y", "float32", (4,), y),),
        kernels=(Kernel("scale", 3, "multiply"),),
        steps=(Step(0, (x, weights, y), ("scale", "also scale"), stage=0),),
        constants=(Constant("weights", "float32", (4,), 0),),
        operators={"Mul": 1},
        params_nbytes=16,
        io_nbytes=128,
    )
    return Bundle(graph, object_code(), SCALE_WEIGHTS.tobytes())


def chain_bundle() -> Bundle:
    """Like `scale_bundle`, twice over: "y" is x * w * w by way of the arena.

    More outputs: "w" is the constant itself, "same" the input "x" unchanged.
    """
    x, y, weights = Buffer("io", 0, 16), Buffer("io", 64, 16), Buffer("params", 64, 16)
    between = Buffer("arena", 64, 16)
    graph = make_graph(
        inputs=(Tensor("x", "float32", (4,), x),),
        outputs=(
            Tensor("y", "float32", (4,), y),
            Tensor("w", "float32", (2, 2), weights),
            Tensor("same", "float32", (4, 1), x),
        ),
        kernels=(Kernel("scale", 3, "multiply"),),
        steps=(
            Step(0, (x, weights, between), ("first",), stage=0),
            Step(0, (between, weights, y), ("second",), stage=1),
        ),
        constants=(Constant("weights", "float32", (4,), 64),),
        operators={"Mul": 2},
        params_nbytes=80,
        io_nbytes=128,
        arena_nbytes=128,
    )
    return Bundle(graph, object_code(), bytes(64) + SCALE_WEIGHTS.tobytes())


def samples_bundle() -> Bundle:
    """`chain_bundle` for every sample of a batch: "x" and "y" are [N, 4], "w" is what it is, and
    the samples of "same" are the columns of a [4, N]."""
    bundle = chain_bundle()
    [x], [y, w, same] = bundle.graph.inputs, bundle.graph.outputs
    graph = replace(
        bundle.graph,
        inputs=(replace(x, shape=("N", 4)),),
        outputs=(replace(y, shape=("N", 4)), w, replace(same, shape=(4, "N"))),
        batch=Batch("N", (Share(0, 1),), (Share(0, 1), None, Share(1, 1))),
    )
    return replace(bundle, graph=graph)


def pairs_bundle() -> Bundle:
    """`add_bundle` for every sample of a batch: "a" is [N, 2, 3], "b" is [2, N, 3], and "sum" has
    two rows of three per sample."""
    bundle = add_bundle()
    [a, b], [total] = bundle.graph.inputs, bundle.graph.outputs
    graph = replace(
        bundle.graph,
        inputs=(replace(a, shape=("N", 2, 3)), replace(b, shape=(2, "N", 3))),
        outputs=(replace(total, shape=("sum:0", 3)),),
        batch=Batch("N", (Share(0, 1), Share(1, 1)), (Share(0, 2),)),
    )
    return replace(bundle, graph=graph)


def failing_bundle() -> Bundle:
    """Its kernel returns x[0] as an integer: give it -1."""
    return _one_kernel_bundle("fail")


def endless_bundle() -> Bundle:
    """Its kernel never returns."""
    return _one_kernel_bundle("spin")


def trapping_bundle() -> Bundle:
    """Its kernel traps (unreachable)."""
    return _one_kernel_bundle("trap")


def hungry_bundle() -> Bundle:
    """Its kernel takes x[0] MiB of workspace, and -1 is returned when there is no more."""
    return _one_kernel_bundle("hoard")


def parallel_bundle() -> Bundle:
    """Its kernel launches four tasks; y[i] is 40 + i."""
    return _one_kernel_bundle("parallel")


def orphan_bundle() -> Bundle:
    """Its kernel calls `nobody_defines_this`, so it cannot be linked."""
    return _one_kernel_bundle("orphan", "missing")


def _one_kernel_bundle(symbol: str, *cfg: str) -> Bundle:
    """Float32 input "x" and output "y", both of shape [4]; one step, of the node "culprit"."""
    x, y = Buffer("io", 0, 16), Buffer("io", 64, 16)
    graph = make_graph(
        inputs=(Tensor("x", "float32", (4,), x),),
        outputs=(Tensor("y", "float32", (4,), y),),
        kernels=(Kernel(symbol, 2, symbol),),
        steps=(Step(0, (x, y), ("culprit",), stage=0),),
        operators={"Identity": 1},
        io_nbytes=128,
    )
    return Bundle(graph, object_code(*cfg), b"")


def make_graph(
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    kernels: tuple[Kernel, ...],
    steps: tuple[Step, ...],
    operators: dict[str, int],
    io_nbytes: int,
    constants: tuple[Constant, ...] = (),
    params_nbytes: int = 0,
    arena_nbytes: int = 0,
) -> Graph:
    """A graph with a made-up source."""
    return Graph(
        source=Source("tiny.onnx", "0" * 64, 17, operators),
        producer={"wasmgraph": "0.1.0"},
        simd="none",
        inputs=inputs,
        outputs=outputs,
        constants=constants,
        kernels=kernels,
        steps=steps,
        params_nbytes=params_nbytes,
        io_nbytes=io_nbytes,
        arena_nbytes=arena_nbytes,
    )
