"""Places that cannot be written to: refused before any work, with nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner

from wasmgraph.cli import main


class TestOutputPath:
    """The design has no kind of error of its own for this; it must be none of the model's."""

    def refused(self, *arguments: object, texts: tuple[str, ...]) -> None:
        result = CliRunner().invoke(main, ["compile", "--no-verify", *map(str, arguments)])
        assert result.exit_code == 1, result.stderr
        assert "bug" not in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stderr.count("error: ") == 1
        for text in texts:
            assert text in result.stderr

    def test_in_a_folder_that_is_not_there(self, tmp_path: Path, digits_onnx: Path) -> None:
        out = tmp_path / "no" / "out.wasm"
        self.refused(digits_onnx, "-o", out, texts=(str(out), "No such file", "hint: "))
        assert list(tmp_path.iterdir()) == []

    def test_that_is_a_folder(self, tmp_path: Path, digits_onnx: Path) -> None:
        out = tmp_path / "out.wasm"
        out.mkdir()
        self.refused(digits_onnx, "-o", out, texts=(str(out), "folder"))
        assert list(tmp_path.iterdir()) == [out]
        assert list(out.iterdir()) == []

    def test_below_a_file(self, tmp_path: Path, digits_onnx: Path) -> None:
        (tmp_path / "file").touch()
        self.refused(digits_onnx, "-o", tmp_path / "file" / "out.wasm", texts=("Not a directory",))
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_in_a_folder_that_cannot_be_written_to(self, tmp_path: Path, digits_onnx: Path) -> None:
        if os.geteuid() == 0:  # whom permissions do not stop
            folder = Path("/proc")
        else:
            folder = tmp_path / "closed"
            folder.mkdir(mode=0o500)
        self.refused(digits_onnx, "-o", folder / "out.wasm", texts=(str(folder), "cannot write"))
        self.refused(
            digits_onnx,
            *("-o", tmp_path / "out.wasm", "--bundle", folder / "bundle"),
            texts=(str(folder / "bundle"), "cannot write"),
        )
        assert not (tmp_path / "out.wasm").exists()

    def test_is_refused_before_any_work(self, tmp_path: Path, digits_onnx: Path) -> None:
        result = CliRunner().invoke(
            main, ["compile", str(digits_onnx), "-o", str(tmp_path / "no" / "out.wasm")]
        )
        assert "optimise" not in result.stderr

    def test_a_bundle_folder_that_cannot_be_made(self, tmp_path: Path, digits_onnx: Path) -> None:
        (tmp_path / "file").touch()
        self.refused(
            digits_onnx,
            *("-o", tmp_path / "out.wasm", "--bundle", tmp_path / "file"),
            texts=("cannot write to the folder", str(tmp_path / "file"), "hint: "),
        )
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_the_bundle_s_folder_is_gone_where_a_later_stage_fails(
        self, tmp_path: Path, digits_onnx: Path
    ) -> None:
        result = CliRunner().invoke(
            main,
            [
                *("compile", str(digits_onnx), "-o", str(tmp_path / "out.wasm")),
                *("--bundle", str(tmp_path / "bundle"), "--rtol", "0", "--atol", "0"),
            ],
        )
        assert result.exit_code == 11
        assert list(tmp_path.iterdir()) == []
