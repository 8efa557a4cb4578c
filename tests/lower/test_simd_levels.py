"""SIMD levels: the same bits without SIMD, and no graph needs more than its level says."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
import wasmtime

import wasmgraph
import wasmgraph.kernels
from tests.kernels.runner import GUARD, Instance
from tests.onnx_models import Array, make_model, node
from wasmgraph.assembler.function import Function, relaxed_simd
from wasmgraph.assembler.scalar import scalarise
from wasmgraph.bundle import SimdLevel
from wasmgraph.errors import LoadError
from wasmgraph.importer import import_model, load_model
from wasmgraph.kernels.normalisation import ChannelNorm
from wasmgraph.lower import lower
from wasmgraph.optimise import optimise
from wasmgraph.optimise.program import Call, Program, TirKernel
from wasmgraph.runtime.native_code import Settings

PAGE = 65536


def mixed_model(seed: int) -> onnx.ModelProto:
    """A network of random extents with operators of every family of kernels, and one of TVM's."""
    rng = np.random.default_rng(seed)
    channels, filters = (4 * int(n) for n in rng.integers(2, 5, 2))
    height, width = (int(n) for n in rng.integers(17, 24, 2))

    def weights(*shape: int) -> Array:
        return (rng.standard_normal(shape) / 4).astype(np.float32)

    stride = int(rng.integers(1, 3))
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, 2]}
    return make_model(
        [
            node("Conv", "x w3 b", "c1", pads=[1, 1, 1, 1]),
            node("Relu", "c1", "r1"),
            node("Conv", "r1 w3b", "c2", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("LeakyRelu", "c2", "r2", alpha=0.1),
            node("Conv", "r1 wd bd", "d", group=filters, **window),
            node("Clip", "d zero six", "dc"),
            node("MaxPool", "r1", "mp", **window),
            node("AveragePool", "r1", "ap", count_include_pad=0, **window),
            node("Mul", "mp ap", "pools"),
            node("Add", "pools dc", "sum"),
            node("Conv", "r1 w1", "thin", pads=[1, 1, 1, 1]),
            node("Sigmoid", "thin", "y_thin"),
            node("Resize", "r2 none scales", "up", mode="linear"),
            node("Pad", "up pads", "y_up"),
            node("Transpose", "r2", "t", perm=[0, 2, 3, 1]),
            node("LayerNormalization", "t gamma beta", "ln", axis=-1),
            node("MatMul", "ln wm", "mm"),
            node("Tanh", "mm", "th"),
            node("Softmax", "th", "y_soft", axis=-1),
            node("ReduceMean", "sum axes", "mean", keepdims=1),
            node("ReduceMax", "sum axes", "y_max", keepdims=0),
            node("Div", "sum mean", "ratio"),
            node("Exp", "mean", "e"),
            node("Erf", "ratio", "erf"),
            node("Mul", "erf e", "scaled"),
            node("Abs", "scaled", "magnitude"),
            node("Log", "magnitude", "log"),
            node("Floor", "scaled", "floor"),
            node("Round", "scaled", "round"),
            node("Max", "log floor", "larger"),
            node("Min", "larger round", "smaller"),
            node("Sqrt", "magnitude", "root"),
            node("PRelu", "smaller slope", "pr"),
            node("Concat", "pr root", "y_cat", axis=3),
            node("Sin", "mean", "y_sin"),
            node("Transpose", "thin", "lines", perm=[2, 0, 1, 3]),
            node("Squeeze", "lines one", "sequence"),
            node("LSTM", "sequence wx wh", "y_lstm", hidden_size=5),
        ],
        {"x": (1, channels, height, width)},
        "y_thin y_up y_soft y_max y_cat y_sin y_lstm",
        {
            "w3": weights(filters, channels, 3, 3),
            "b": weights(filters),
            "w3b": weights(filters + 3, filters, 3, 3),
            "wd": weights(filters, 1, 3, 3),
            "bd": weights(filters),
            "w1": weights(1, filters, 3, 3),
            "zero": np.float32(0),
            "six": np.float32(6),
            "none": np.zeros(0, np.float32),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
            "gamma": weights(filters + 3),
            "beta": weights(filters + 3),
            "wm": weights(filters + 3, 7),
            "axes": np.array([2, 3]),
            "slope": weights(filters, 1, 1),
            "one": np.array([1]),
            "wx": weights(1, 20, width),
            "wh": weights(1, 20, 5),
        },
    )


@functools.cache
def program_of(seed: int) -> Program:
    return optimise(import_model(load_model(mixed_model(seed))))


def memory_after(function: Function, call: Call, program: Program) -> Array:
    """All of the memory after a kernel ran on its weights and on random values for the rest."""
    rng = np.random.default_rng(0)
    contents: list[bytes] = []
    for place in (*call.reads, *call.writes):
        weight = program.weights.get(place.storage)
        if weight is None:
            contents.append(rng.standard_normal(-(-place.nbytes // 4)).astype(np.float32).tobytes())
        else:
            data = np.ascontiguousarray(weight.array).tobytes()
            contents.append(data[place.offset : place.offset + place.nbytes])
    pages = -(-sum(len(c) + GUARD for c in contents) // PAGE) + 1
    instance = Instance([function], pages)
    instance.memory[:] = 0
    pointers, end = [], GUARD
    for data in contents:
        instance.memory[end : end + len(data)] = np.frombuffer(data, np.uint8)
        pointers.append(end)
        end += -(-len(data) // 16) * 16 + GUARD
    instance.call(function.name, *pointers)
    return instance.memory.view(np.uint32).copy()


def differences(a: Array, b: Array) -> int:
    """How many words differ, where they are not two NaNs: wasm leaves open which NaN it is."""
    are_nan = np.isnan(a.view(np.float32)) & np.isnan(b.view(np.float32))
    return int(((a != b) & ~are_nan).sum())


@pytest.mark.parametrize("seed", range(3))
def test_kernels_without_simd_give_the_same_bits(seed):
    program = program_of(seed)
    calls = {call.kernel: call for call in program.calls}
    assembled = {k: c for k, c in calls.items() if not isinstance(k, TirKernel)}
    assert len(assembled) > 15
    for kernel, call in assembled.items():
        function = kernel.assemble("kernel")
        with_simd = memory_after(function, call, program)
        without = memory_after(scalarise(function), call, program)
        assert differences(with_simd, without) == 0, kernel


@pytest.mark.parametrize("group", [1, 3])
def test_channel_normalisation_without_simd_gives_the_same_bits(group):
    """No operator becomes this kernel by itself."""
    spec = ChannelNorm(((2, 66, 66),), (11, 6, 6), 6, group, 1e-5, True, True)
    x = np.random.default_rng(0).standard_normal(144).astype(np.float32)
    function = spec.assemble("kernel")
    results = []
    for variant in (function, scalarise(function)):
        instance = Instance([variant], 1)
        instance.memory[: x.nbytes] = x.view(np.uint8)
        instance.call("kernel", 0, 132 * 4, 138 * 4, 2048)
        results.append(instance.memory.tobytes())
    assert any(results[0][2048:])
    assert results[0] == results[1]


# Where else kernels are tried without SIMD: the module says so by these words.
ELSEWHERE = {
    "IntegerContraction": ("kernels/test_integer_contraction.py", "scalarise("),
    "IntegerDepthwise": ("kernels/test_integer_depthwise.py", "scalarise("),
    "PackIntegerColumns": ("kernels/test_integer_columns.py", "scalarise("),
    "TypedElementwise": ("kernels/test_typed_elementwise.py", "scalarise("),
    "Lookup": ("kernels/test_lookup.py", "scalarise("),
    # In whole networks, tensor by tensor.
    "PadBytes": ("quantised/test_quantised_models.py", '"none"'),
    "MaxPoolBytes": ("quantised/test_quantised_models.py", '"none"'),
}


def test_these_are_all_families_of_kernels():
    families = {ChannelNorm.__name__}
    for name, (module, words) in ELSEWHERE.items():
        assert words in (Path(__file__).parents[1] / module).read_text()
        families.add(name)
    families |= {type(call.kernel).__name__ for call in program_of(0).calls}
    for item in pkgutil.iter_modules(wasmgraph.kernels.__path__, "wasmgraph.kernels."):
        module = importlib.import_module(item.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            is_kernel = hasattr(kind, "assemble") and Protocol not in kind.__bases__
            if kind.__module__ == item.name and is_kernel:
                assert name in families, f"{item.name}.{name} is not tried without SIMD"
    assert TirKernel.__name__ in families


def engine_without(*features: str) -> wasmtime.Engine:
    config = wasmtime.Config()
    for feature in features:
        setattr(config, f"wasm_{feature}", False)
    return wasmtime.Engine(config)


NO_SIMD = ("relaxed_simd", "simd")
NO_RELAXED = ("relaxed_simd",)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[SimdLevel, Path]:
    """A graph per level, verified, with kernels of ours and of TVM's."""
    folder = tmp_path_factory.mktemp("levels")
    paths: dict[SimdLevel, Path] = {}
    for level in ("none", "simd128", "relaxed"):
        paths[level] = folder / f"{level}.wasm"
        report = wasmgraph.compile(mixed_model(0), paths[level], simd=level)
        assert report.simd == level
        assert report.verification is not None
        assert report.verification.agrees
    return paths


@pytest.mark.parametrize(
    ("level", "missing", "is_taken"),
    [
        ("none", NO_SIMD, True),
        ("simd128", NO_SIMD, False),
        ("simd128", NO_RELAXED, True),
        ("relaxed", NO_RELAXED, False),
    ],
)
def test_a_graph_needs_no_more_than_its_level(compiled, level, missing, is_taken):
    """Engines refuse a module whole if one instruction, type or constant in it is not theirs."""
    data = compiled[level].read_bytes()
    if is_taken:
        wasmtime.Module(engine_without(*missing), data)
    else:
        with pytest.raises(wasmtime.WasmtimeError, match="SIMD support is not enabled"):
            wasmtime.Module(engine_without(*missing), data)


def test_the_sample_needs_no_simd_if_told_so(digits_onnx: Path, tmp_path: Path):
    out = tmp_path / "digits.wasm"
    report = wasmgraph.compile(digits_onnx, out, simd="none")
    assert report.verification is not None
    assert report.verification.agrees
    wasmtime.Module(engine_without(*NO_SIMD), out.read_bytes())


def test_the_sample_agrees_with_relaxed_simd(digits_onnx: Path, tmp_path: Path):
    out = tmp_path / "digits.wasm"
    report = wasmgraph.compile(digits_onnx, out, simd="relaxed")
    assert report.verification is not None
    assert report.verification.agrees
    with wasmgraph.load(out) as graph:
        assert graph.metadata.simd == "relaxed"
    with pytest.raises(wasmtime.WasmtimeError, match="relaxed SIMD support is not enabled"):
        wasmtime.Module(engine_without(*NO_RELAXED), out.read_bytes())


def test_an_engine_without_relaxed_simd_is_a_load_error(compiled, monkeypatch):
    config_of = Settings.config

    def without(settings: Settings) -> wasmtime.Config:
        config = config_of(settings)
        config.wasm_relaxed_simd = False
        return config

    monkeypatch.setattr(Settings, "config", without)
    with pytest.raises(LoadError, match="relaxed SIMD support is not enabled"):
        wasmgraph.load(compiled["relaxed"], cache=False)
    with wasmgraph.load(compiled["simd128"], cache=False) as graph:
        assert graph.metadata.simd == "simd128"


def test_lowering_gives_every_level_its_own_instructions():
    program = program_of(0)
    calls = tuple(call for call in program.calls if not isinstance(call.kernel, TirKernel))
    ours = replace(program, stages=tuple((call,) for call in calls))
    none, simd128, relaxed = (
        {f.name: f.instructions for f in lower(ours, level).functions}
        for level in ("none", "simd128", "relaxed")
    )
    kernels = dict(zip(simd128, dict.fromkeys(call.kernel for call in calls), strict=True))
    for name, kernel in kernels.items():
        function = kernel.assemble(name)
        assert simd128[name] == function.instructions
        assert none[name] == scalarise(function).instructions
        with relaxed_simd():
            assert relaxed[name] == kernel.assemble(name).instructions
    assert none.keys() == simd128.keys() == relaxed.keys()
    assert simd128 != relaxed
