"""Scalar forms of the instructions on lanes of 8 and 16 bits, which `scalar` keeps four or two to
an i32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wasmgraph.assembler.function import Expr, i32
from wasmgraph.assembler.scalar_lanes import Lanes, Share, apply, choose


def _shifted(name: str, value: Expr, bits: int) -> Expr:
    return apply(f"i32.{name}", value, i32(bits)) if bits else value


def _field(value: Expr, first: int, bits: int, sign: str) -> Expr:
    """Some bits of a lane as a number."""
    return _shifted(f"shr_{sign}", _shifted("shl", value, 32 - bits - first), 32 - bits)


def _joined(values: Sequence[Expr]) -> Expr:
    """Two or four numbers side by side; only their lowest bits count."""
    bits = 32 // len(values)
    word = _shifted("shl", values[-1], 32 - bits)
    for index, value in enumerate(values[:-1]):
        masked = apply("i32.and", value, i32((1 << bits) - 1))
        word = apply("i32.or", word, _shifted("shl", masked, bits * index))
    return word


def _fields(share: Share, lanes: Sequence[Expr], bits: int, sign: str) -> list[Expr]:
    """All lanes of `bits` as numbers."""
    shared = [share(lane) for lane in lanes]
    return [_field(lane, first, bits, sign) for lane in shared for first in range(0, 32, bits)]


def _rejoined(values: Sequence[Expr]) -> Lanes:
    """Numbers, a multiple of four of them, as four lanes."""
    per_lane = len(values) // 4
    return tuple(_joined(values[i : i + per_lane]) for i in range(0, len(values), per_lane))


def _extended_bytes(sign: str) -> Callable[[Share, Lanes], Lanes]:
    return lambda share, lanes: _rejoined(_fields(share, lanes[:2], 8, sign))


def _extended_halves(sign: str) -> Callable[[Share, Lanes], Lanes]:
    return lambda share, lanes: tuple(_fields(share, lanes[:2], 16, sign))


def _extended_high_halves(share: Share, lanes: Lanes) -> Lanes:
    return tuple(_fields(share, lanes[2:], 16, "s"))


def _saturated(share: Share, value: Expr, low: int, high: int) -> Expr:
    value = share(value)
    value = share(choose(apply("i32.gt_s", value, i32(high)), i32(high), value))
    return choose(apply("i32.lt_s", value, i32(low)), i32(low), value)


def _narrowed_words(low: int, high: int) -> Callable[[Share, Lanes, Lanes], Lanes]:
    def narrow(share: Share, a: Lanes, b: Lanes) -> Lanes:
        return _rejoined([_saturated(share, lane, low, high) for lane in a + b])

    return narrow


def _narrowed_halves(low: int, high: int) -> Callable[[Share, Lanes, Lanes], Lanes]:
    def narrow(share: Share, a: Lanes, b: Lanes) -> Lanes:
        halves = _fields(share, a, 16, "s") + _fields(share, b, 16, "s")
        return _rejoined([_saturated(share, half, low, high) for half in halves])

    return narrow


def _dot(share: Share, a: Lanes, b: Lanes) -> Lanes:
    products = [
        apply("i32.mul", x, y)
        for x, y in zip(_fields(share, a, 16, "s"), _fields(share, b, 16, "s"), strict=True)
    ]
    return tuple(apply("i32.add", products[i], products[i + 1]) for i in range(0, 8, 2))


def _difference(share: Share, a: Lanes, b: Lanes) -> Lanes:
    """Of 16-bit lanes; it wraps, since only the lowest bits are kept."""
    pairs = zip(_fields(share, a, 16, "s"), _fields(share, b, 16, "s"), strict=True)
    return _rejoined([apply("i32.sub", x, y) for x, y in pairs])


def _extremum(comparison: str, sign: str) -> Callable[[Share, Lanes, Lanes], Lanes]:
    def extremum(share: Share, a: Lanes, b: Lanes) -> Lanes:
        pairs = [
            (share(x), share(y))
            for x, y in zip(_fields(share, a, 8, sign), _fields(share, b, 8, sign), strict=True)
        ]
        return _rejoined([choose(apply(comparison, x, y), x, y) for x, y in pairs])

    return extremum


def interleaved(share: Share, a: Lanes, b: Lanes, picks: Sequence[int]) -> Lanes:
    """A shuffle of whole 16-bit lanes."""
    chosen = [first // 2 for first in picks[::2]]
    whole = bytes(2 * half + index for half in chosen for index in range(2))
    assert bytes(picks) == whole, "i8x16.shuffle of single bytes has no scalar form"
    halves = _fields(share, a + b, 16, "s")
    return _rejoined([halves[half] for half in chosen])


UNARY: dict[str, Callable[[Share, Lanes], Lanes]] = {
    **{f"i16x8.extend_low_i8x16_{sign}": _extended_bytes(sign) for sign in "su"},
    **{f"i32x4.extend_low_i16x8_{sign}": _extended_halves(sign) for sign in "su"},
    "i32x4.extend_high_i16x8_s": _extended_high_halves,
}

BINARY: dict[str, Callable[[Share, Lanes, Lanes], Lanes]] = {
    "i16x8.sub": _difference,
    "i32x4.dot_i16x8_s": _dot,
    "i16x8.narrow_i32x4_s": _narrowed_words(-(2**15), 2**15 - 1),
    "i16x8.narrow_i32x4_u": _narrowed_words(0, 2**16 - 1),
    "i8x16.narrow_i16x8_s": _narrowed_halves(-(2**7), 2**7 - 1),
    "i8x16.narrow_i16x8_u": _narrowed_halves(0, 2**8 - 1),
    "i8x16.max_s": _extremum("i32.gt_s", "s"),
    "i8x16.max_u": _extremum("i32.gt_s", "u"),
    "i8x16.min_s": _extremum("i32.lt_s", "s"),
    "i8x16.min_u": _extremum("i32.lt_s", "u"),
}
