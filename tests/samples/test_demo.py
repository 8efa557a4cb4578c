"""What `make demo` shows: pictures of digits through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from wasmgraph.cli import main

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"
PICTURES = sorted((DIGITS / "images").glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_run_reads_the_digit_in_a_picture(picture: Path, digits_wasm: Path) -> None:
    args = ["run", digits_wasm, "-i", picture, "--range", "0-1", "--top", 3, "--json"]
    labels = ["--labels", DIGITS / "labels.txt"]
    result = CliRunner().invoke(main, [str(arg) for arg in args + labels])
    assert result.exit_code == 0, result.stderr
    first, *others = json.loads(result.stdout)["classes"]["top"]
    assert first["label"] == picture.stem.split("-")[0]
    assert first["probability"] > 0.9
    assert len(others) == 2


def test_the_makefile_names_files_that_are_there() -> None:
    text = (DIGITS.parents[1] / "Makefile").read_text(encoding="utf-8")
    named = [word for word in text.split() if word.startswith("$(SAMPLE)/")]
    assert len(named) == 4
    assert all((DIGITS / word.partition("/")[2]).is_file() for word in named)
