"""What appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmgraph.atomic import folder_filled_when_done, replaced_when_done
from wasmgraph.errors import WasmgraphError


class TestFile:
    def test_takes_the_target_s_place_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "out.wasm"
        target.write_text("old")
        with replaced_when_done(target) as unfinished:
            unfinished.write_text("new")
            assert target.read_text() == "old"
        assert target.read_text() == "new"
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
    def test_leaves_the_old_one_where_the_work_ends_early(
        self, tmp_path: Path, interruption: type[BaseException]
    ) -> None:
        target = tmp_path / "out.wasm"
        target.write_text("old")
        with pytest.raises(interruption), replaced_when_done(target) as unfinished:  # noqa: PT012
            unfinished.write_text("half of the ne")
            raise interruption
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]

    def test_two_writers_do_not_meet(self, tmp_path: Path) -> None:
        target = tmp_path / "out.wasm"
        with replaced_when_done(target) as first, replaced_when_done(target) as second:
            assert first != second
            first.write_text("first")
            second.write_text("second")
        assert target.read_text() == "first"  # the one that ended last
        assert list(tmp_path.iterdir()) == [target]

    def test_keeps_the_suffix_which_tools_look_at(self, tmp_path: Path) -> None:
        with replaced_when_done(tmp_path / "out.wasm") as unfinished:
            assert unfinished.suffix == ".wasm"
            assert unfinished.parent == tmp_path

    @pytest.mark.parametrize("place", ["no/out.wasm", "file/out.wasm", "folder"])
    def test_is_refused_where_it_cannot_be(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with (
            pytest.raises(WasmgraphError, match="cannot write") as caught,
            replaced_when_done(tmp_path / place),
        ):
            pytest.fail("the block must not run")
        assert str(tmp_path / place) in caught.value.message
        assert sorted(tmp_path.rglob("*")) == before


class TestFolder:
    def test_is_made_with_those_above_it(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b"
        with folder_filled_when_done(target) as unfinished:
            (unfinished / "one").write_text("1")
            assert not target.exists()
        assert (target / "one").read_text() == "1"
        assert list(tmp_path.rglob(".*")) == []

    def test_keeps_what_else_is_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("untouched")
        (tmp_path / "one").write_text("old")
        with folder_filled_when_done(tmp_path) as unfinished:
            (unfinished / "one").write_text("new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "mine": "untouched",
            "one": "new",
        }

    @pytest.mark.parametrize("exists", [False, True])
    def test_is_as_before_where_the_work_ends_early(self, tmp_path: Path, exists: bool) -> None:
        target = tmp_path / "a" / "b"
        if exists:
            target.mkdir(parents=True)
            (target / "one").write_text("old")
        before = sorted(tmp_path.rglob("*"))
        with (  # noqa: PT012
            pytest.raises(KeyboardInterrupt),
            folder_filled_when_done(target) as unfinished,
        ):
            (unfinished / "one").write_text("new")
            raise KeyboardInterrupt
        assert sorted(tmp_path.rglob("*")) == before
        assert not exists or (target / "one").read_text() == "old"

    def test_takes_a_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with folder_filled_when_done(Path("kept")) as unfinished:
            (unfinished / "one").touch()
        assert (tmp_path / "kept" / "one").exists()

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_is_refused_where_it_cannot_be(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(WasmgraphError, match="cannot write to the folder") as caught,
            folder_filled_when_done(tmp_path / place),
        ):
            pytest.fail("the block must not run")
        assert str(tmp_path / place) in caught.value.message
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
