from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tutvae.data.readers.utf8 import decode, read_lines, split_lines


class TestDecode:
    def test_the_byte_order_mark_is_no_text(self) -> None:
        assert decode("\ufeffnaïve 😀".encode(), "here") == "naïve 😀"

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_a_byte_that_is_not_utf8_is_found(self, end: bytes) -> None:
        content = b"one" + end + "naïve ".encode() + b"\xe9cole"
        message = r"standard input, line 2, byte 8 is not UTF-8 \(0xe9\)"
        with pytest.raises(ValueError, match=message):
            decode(content, "standard input")

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_another_encoding_is_refused(self, codec: str) -> None:
        with pytest.raises(ValueError, match="argument 2 is not UTF-8 text"):
            decode("a text".encode(codec), "argument 2")

    def test_what_to_do_with_wrong_bytes(self) -> None:
        assert decode(b"a\xff", "here", errors="replace") == "a\ufffd"


class TestLines:
    def test_only_line_ends_end_lines(self) -> None:
        inside = "a\u2028b\x85c\x0cd\x0be\x1cf"
        assert split_lines(f"{inside}\n\r\nx\ry\n") == [inside, "", "x", "y"]
        assert split_lines("") == []
        assert split_lines("no end") == ["no end"]

    @pytest.mark.parametrize("pack", ["", ".gz"])
    def test_of_a_file(self, tmp_path: Path, pack: str) -> None:
        content = "\ufeffone\r\n\ntwo\u2028still\rthree\n".encode()
        path = tmp_path / f"x{pack}"
        path.write_bytes(gzip.compress(content) if pack else content)
        assert list(read_lines(path)) == ["one", "", "two\u2028still", "three"]

    def test_a_wrong_byte_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"one\ntwo\nth\xff")
        lines = read_lines(tmp_path / "x")
        assert [next(lines), next(lines)] == ["one", "two"]
        with pytest.raises(ValueError, match="x, line 3, byte 3 is not UTF-8"):
            next(lines)

    def test_a_broken_gzip_file(self, tmp_path: Path) -> None:
        (tmp_path / "x.gz").write_bytes(gzip.compress(b"a few bytes, " * 40)[:-9])
        with pytest.raises(ValueError, match=r"x\.gz is not a whole gzip file"):
            list(read_lines(tmp_path / "x.gz"))
