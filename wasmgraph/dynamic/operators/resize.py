"""Resize and its forerunner Upsample (toolchain/executor/src/dynamic/ops/resize.rs)."""

from __future__ import annotations

from collections.abc import Mapping

from wasmgraph.dynamic.view import Converter, NodeView, Unsupported, Value, float_word

_MODES = {"nearest": 0, "linear": 1, "bilinear": 1, "cubic": 2}
_COORDINATES = {
    "half_pixel": 0,
    "asymmetric": 1,
    "align_corners": 2,
    "pytorch_half_pixel": 3,
    "half_pixel_symmetric": 4,
    "tf_crop_and_resize": 5,
}
_ROUNDINGS = {"round_prefer_floor": 0, "round_prefer_ceil": 1, "floor": 2, "ceil": 3}
_POLICIES = {"stretch": 0, "not_larger": 1, "not_smaller": 2}


def _resize(view: NodeView) -> list[Value]:
    if view.opset < 11:
        scales = view.given(1, "scales", "float32")
        return _call(view, "asymmetric", "floor", [None, scales, None])
    inputs = [view.input(i) if view.has(i) else None for i in (1, 2, 3)]
    coordinates = view.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = view.attribute("nearest_mode", "round_prefer_floor")
    if coordinates != "tf_crop_and_resize":
        inputs[0] = None  # a region that is there for nothing
    return _call(view, coordinates, rounding, inputs)


def _call(view: NodeView, coordinates: str, rounding: str, rest: list[Value | None]) -> list[Value]:
    mode = view.attribute("mode", "nearest")
    policy = view.attribute("keep_aspect_ratio_policy", "stretch")
    if mode not in _MODES or coordinates not in _COORDINATES:
        raise Unsupported(f"mode {mode!r} with {coordinates!r} is not supported")
    axes = view.attribute("axes", ())
    words = [
        _MODES[mode],
        _COORDINATES[coordinates],
        _ROUNDINGS[rounding],
        float_word(view.attribute("cubic_coeff_a", -0.75)),
        view.attribute("exclude_outside", 0),
        float_word(view.attribute("extrapolation_value", 0.0)),
        view.attribute("antialias", 0),
        _POLICIES[policy],
        len(axes),
        *axes,
    ]
    dtype = view.dtype()
    suffix = {"float32": "_f32", "float64": "_f64"}.get(dtype, "_any")
    if suffix == "_any" and mode != "nearest":
        raise Unsupported(f"mode {mode!r} of {dtype} is not supported")
    return view.emit(f"resize{suffix}", [view.input(0), *rest], [dtype], words)


CONVERTERS: Mapping[tuple[str, str], Converter] = {
    ("", "Resize"): _resize,
    ("", "Upsample"): _resize,
}
