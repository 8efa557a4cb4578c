"""Fourier transforms against numpy's in double precision; what is lost is the rounding to float32
(or, of float64, what the order of some hundred additions makes)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.onnx_models import Array
from tests.operators.node_cases import Case, check, fixed, run_cases

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(2, 12, 5, 1)).astype(np.float32)
COMPLEX = RNG.normal(size=(2, 12, 5, 2)).astype(np.float32)
SIGNAL = RNG.normal(size=(2, 100, 1)).astype(np.float32)


def as_complex(x: Array) -> Array:
    wide = x.astype(np.float64)
    return wide[..., 0] + (1j * wide[..., 1] if x.shape[-1] == 2 else 0)


def as_pairs(x: Array, dtype: np.dtype) -> Array:
    return np.stack([x.real, x.imag], -1).astype(dtype)


def dft(x: Array, length: int, axis: int, **attributes: int) -> Case:
    values = as_complex(x)
    if attributes.get("inverse") and attributes.get("onesided"):
        expected = np.fft.irfft(values, length, axis)[..., None].astype(x.dtype)
    elif attributes.get("inverse"):
        expected = as_pairs(np.fft.ifft(values, length, axis), x.dtype)
    elif attributes.get("onesided"):
        expected = as_pairs(np.fft.rfft(values.real, length, axis), x.dtype)
    else:
        expected = as_pairs(np.fft.fft(values, length, axis), x.dtype)
    operands = (x, fixed(length), fixed(axis))
    what = f"{x.dtype} {x.shape[-1]} {length} {axis} {attributes}"
    return Case(what, "DFT", operands, attributes, (expected,))


def stft(what: str, window: Array | None, step: int, length: int, onesided: int) -> Case:
    frames = np.lib.stride_tricks.sliding_window_view(SIGNAL[..., 0].astype(np.float64), length, 1)
    weighted = frames[:, ::step] * (1 if window is None else window)
    transform = np.fft.rfft if onesided else np.fft.fft
    expected = as_pairs(transform(weighted), SIGNAL.dtype)
    operands = (SIGNAL, fixed(step), window, fixed(length) if window is None else None)
    attributes = {} if onesided else {"onesided": 0}
    return Case(what, "STFT", operands, attributes, (expected,))


CASES = [
    *(dft(COMPLEX, length, 1) for length in (12, 7, 16, 30, 1)),
    dft(COMPLEX, 5, 2),
    dft(COMPLEX, 5, 2, inverse=1),
    dft(COMPLEX.astype(np.float64), 12, 1),
    dft(REAL, 12, 1),
    dft(REAL, 12, 1, onesided=1),
    dft(REAL, 9, 1, onesided=1),
    dft(COMPLEX, 12, 1, inverse=1, onesided=1),
    dft(COMPLEX, 11, 1, inverse=1, onesided=1),
    dft(COMPLEX, 30, 1, inverse=1, onesided=1),
    stft("without a window", None, 8, 16, 1),
    stft("with a window", np.hanning(20).astype(np.float32), 7, 20, 1),
    stft("two-sided", np.hanning(15).astype(np.float32), 15, 15, 0),
]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Array]]:
    return run_cases(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_what_numpy_gives(case: Case, results: dict[str, list[Array]]) -> None:
    check(case, results[str(case)], rtol=1e-6, atol=1e-6)


def test_the_axis_of_an_older_opset_is_the_second_by_default() -> None:
    expected = as_pairs(np.fft.fft(as_complex(COMPLEX), axis=1), "f4")
    case = Case("opset 18", "DFT", (COMPLEX,), {}, (expected,))
    check(case, run_cases([case], opset=18)[str(case)], rtol=1e-6, atol=1e-6)


def test_without_a_length_a_spectrum_is_of_an_even_one() -> None:
    spectrum = as_pairs(np.fft.rfft(np.arange(8.0))[None], "f4")
    case = Case(
        "half",
        "DFT",
        (spectrum, None, fixed(1)),
        {"inverse": 1, "onesided": 1},
        (np.arange(8, dtype=np.float32)[None, :, None],),
    )
    check(case, run_cases([case])[str(case)], rtol=1e-6, atol=1e-6)
