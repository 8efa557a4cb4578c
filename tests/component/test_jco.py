"""Components in Node, translated by jco: the same bits as under Wasmtime, and the same errors."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wasmgraph
from tests.component.foreign_host import tensor
from tests.conftest import CHECKOUT
from tests.onnx_models import Array, make_model, node

SAMPLE = CHECKOUT / "samples" / "component"
JCO = SAMPLE / "node_modules" / ".bin" / "jco"
DRIVER = Path(__file__).with_name("run_translated.mjs")
TYPES = Path(__file__).with_name("declare_types.mjs")
RNG = np.random.default_rng(0)

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not JCO.exists(), reason="jco is not installed: npm ci in samples/component"
    ),
]
Translate = Callable[[Path], Path]


def done(*command: object, stdin: str = "") -> str:
    """The stdout of a program, which must end well and say nothing else."""
    ended = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.fixture
def translate(tmp_path: Path) -> Translate:
    """The JavaScript module that jco makes of a component."""

    def run(component: Path) -> Path:
        folder = tmp_path / "translated"
        done(JCO, "transpile", component, "--name", "graph", "-o", folder, "--quiet")
        return folder / "graph.js"

    return run


def run(module: Path, *requests: Sequence[SimpleNamespace]) -> Any:
    """What the driver answers to `named-tensor`s."""
    plain = [
        [
            {
                "name": item.name,
                "dtype": item.tensor.dtype,
                "shape": item.tensor.shape,
                "base64": base64.b64encode(item.tensor.bytes).decode(),
            }
            for item in request
        ]
        for request in requests
    ]
    return json.loads(done("node", DRIVER, module, stdin=json.dumps(plain)))


def contents(answer: Any) -> list[bytes]:
    return [base64.b64decode(item["base64"]) for item in answer["tensors"]]


def test_the_sample_gives_the_same_bits(
    digits_component: Path, digits_wasm: Path, translate: Translate
) -> None:
    images: list[Array] = [RNG.random((1, 1, 8, 8), np.float32) for _ in range(3)]
    answers = run(translate(digits_component), *([tensor("image", image)] for image in images))
    with wasmgraph.load(digits_wasm) as graph:
        expected = [graph.run({"image": image})["probabilities"] for image in images]
    assert [contents(answer) for answer in answers["answers"]] == [[e.tobytes()] for e in expected]
    first = answers["answers"][0]["tensors"][0]
    assert (first["name"], first["dtype"], first["shape"]) == ("probabilities", "float32", [1, 10])


def test_it_describes_itself(digits_component: Path, translate: Translate) -> None:
    said = run(translate(digits_component))["describe"]
    fixed = [{"tag": "fixed", "val": extent} for extent in (1, 1, 8, 8)]
    assert said["inputs"] == [{"name": "image", "dtype": "float32", "shape": fixed}]
    assert said["model"]["name"] == "digits.onnx"


def test_open_axes_and_errors(tmp_path: Path, translate: Translate) -> None:
    model = make_model(
        [node("Add", "a b", "y")],
        {"a": ("int64", ("N", 2)), "b": ("int64", ("N", 2))},
        {"y": ("int64", ("N", 2))},
    )
    component = tmp_path / "component.wasm"
    wasmgraph.compile(model, component, kind="component", verify=False)
    arrays = [RNG.integers(-(2**60), 2**60, (n, 2)) for n in (3, 3, 1, 500)]
    right = [[tensor("b", array), tensor("a", 3 * array)] for array in arrays]
    contradicting = [tensor("a", arrays[0]), tensor("b", arrays[2])]
    found = run(translate(component), *right, contradicting, right[0])["answers"]
    sums = [[(4 * array).tobytes()] for array in arrays]
    assert [contents(answer) for answer in [*found[:4], found[5]]] == [*sums, sums[0]]
    assert found[4]["error"]["tag"] == "input-error"
    assert "'N' is 3 in input 'a' and 1 in input 'b'" in found[4]["error"]["val"]


def test_it_has_the_types_of_the_wit_file(digits_component: Path, translate: Translate) -> None:
    """jco declares the same types for a component as for toolchain/wit, comments aside."""
    folder = translate(digits_component).parent / "interfaces"
    (translated,) = (path.read_text(encoding="utf-8") for path in folder.iterdir())
    written = done("node", TYPES, SAMPLE, CHECKOUT / "toolchain" / "wit" / "inference.wit")
    assert "run(inputs: Array<NamedTensor>): Array<NamedTensor>" in translated
    assert _declarations(translated) == _declarations(written)


def _declarations(typescript: str) -> list[str]:
    """Without comments, and in any order."""
    plain = re.sub(r"/\*.*?\*/", "", typescript, flags=re.DOTALL)
    return sorted(line.strip() for line in plain.splitlines() if line.strip())


def test_the_sample_script(digits_component: Path, digits_wasm: Path, translate: Translate) -> None:
    said = done("node", SAMPLE / "library.mjs", translate(digits_component)).splitlines()
    with wasmgraph.load(digits_wasm) as graph:
        values = graph.run({"image": np.zeros((1, 1, 8, 8), np.float32)})["probabilities"].ravel()
    assert said == [
        "digits.onnx: image: float32[1, 1, 8, 8] -> probabilities: float32[1, 10]",
        f"probabilities: {' '.join(f'{value:.4f}' for value in values)}",
    ]
