from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from tutvae.data.readers.files import (
    DATA_VARIABLE,
    cache_folder,
    check_sha256,
    download,
    find_file,
    local_folder,
    read_bytes,
    write_beside,
)

CONTENT = b"a few bytes, " * 40


class TestLocalFolder:
    def test_the_folder_that_is_given_wins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ptb").mkdir()
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
        assert local_folder("ptb", str(tmp_path)) == tmp_path

    def test_a_given_folder_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere.*ptb's files"):
            local_folder("ptb", tmp_path / "nowhere")

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "ptb").write_bytes(CONTENT)
        with pytest.raises(FileNotFoundError, match="ptb"):
            local_folder("ptb", tmp_path / "ptb")

    def test_the_environment_names_the_folder_of_folders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ptb").mkdir()
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
        assert local_folder("ptb") == tmp_path / "ptb"
        assert local_folder("mnist") is None

    def test_nothing_is_at_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
        assert local_folder("ptb") is None


def test_downloads_are_kept_where_data_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert cache_folder("ptb") == tmp_path / "ptb"
    monkeypatch.delenv(DATA_VARIABLE)
    assert cache_folder("ptb") == Path.home() / ".cache" / "tutvae" / "ptb"


class TestFindFile:
    def test_plain_before_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "x.gz").write_bytes(b"")
        assert find_file(tmp_path, "x") == tmp_path / "x.gz"
        (tmp_path / "x").write_bytes(b"")
        assert find_file(tmp_path, "x") == tmp_path / "x"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds neither x nor x\.gz"):
            find_file(tmp_path, "x")


class TestReadBytes:
    def test_plain_and_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(CONTENT)
        (tmp_path / "x.gz").write_bytes(gzip.compress(CONTENT))
        assert read_bytes(tmp_path / "x") == read_bytes(tmp_path / "x.gz") == CONTENT

    @pytest.mark.parametrize("fault", ["truncated", "flipped", "not gzip", "more at the end"])
    def test_a_broken_gzip_file(self, tmp_path: Path, fault: str) -> None:
        packed = bytearray(gzip.compress(CONTENT))
        flipped = packed.copy()
        flipped[len(packed) // 2] ^= 0xFF
        path = tmp_path / "x.gz"
        path.write_bytes(
            {
                "truncated": packed[: len(packed) // 2],
                "flipped": flipped,
                "not gzip": CONTENT,
                "more at the end": packed + b"more",
            }[fault]
        )
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*not a whole gzip file"):
            read_bytes(path)

    @pytest.mark.parametrize("name", ["x", "x.gz"])
    def test_a_missing_file_is_not_called_broken(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileNotFoundError):
            read_bytes(tmp_path / name)


class TestCheckSha256:
    def test_the_published_file(self) -> None:
        check_sha256(CONTENT, hashlib.sha256(CONTENT).hexdigest(), "the file")

    def test_another_file(self) -> None:
        expected = hashlib.sha256(CONTENT).hexdigest()
        found = hashlib.sha256(CONTENT + b"!").hexdigest()
        with pytest.raises(ValueError, match=f"the file is not the published.*{found}.*{expected}"):
            check_sha256(CONTENT + b"!", expected, "the file")


class TestWriteBeside:
    def test_a_new_file_and_a_newer_one(self, tmp_path: Path) -> None:
        for content in (CONTENT, b"newer"):
            write_beside(tmp_path / "x", content)
            assert (tmp_path / "x").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def test_a_full_disk_leaves_the_old_file_alone(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="file size limits are POSIX")
        (tmp_path / "x").write_bytes(b"old")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                write_beside(tmp_path / "x", b"n" * 200)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "x").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_a_new_file_obeys_the_umask(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            write_beside(tmp_path / "x", CONTENT)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask

    @pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
    def test_a_file_keeps_its_permissions(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "x").touch()
        (tmp_path / "x").chmod(mode)
        write_beside(tmp_path / "x", CONTENT)
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode
        assert (tmp_path / "x").read_bytes() == CONTENT

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "there" / "x")
        for content in (CONTENT, b"newer"):
            write_beside(tmp_path / "link", content)
            assert (tmp_path / "link").is_symlink()
            assert (tmp_path / "there" / "x").read_bytes() == content

    @pytest.mark.parametrize(("name", "code"), [("chmod", errno.EPERM), ("fsync", errno.EINVAL)])
    def test_a_file_system_that_knows_no_permissions_or_synchronising(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, refuse)
        for content in (CONTENT, b"newer"):
            write_beside(tmp_path / "x", content)
            assert (tmp_path / "x").read_bytes() == content

    def test_a_failing_disk_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: int) -> None:
            raise OSError(errno.EIO, "input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="input/output"):
            write_beside(tmp_path / "x", CONTENT)
        assert list(tmp_path.iterdir()) == []

    def test_the_folder_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            write_beside(tmp_path / "nowhere" / "x", CONTENT)


class TestDownload:
    """From file: addresses, which need no network; the text corpora's tests have a server."""

    def test_the_published_file(self, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(CONTENT)
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        download((tmp_path / "there").as_uri(), tmp_path / "new" / "here", sha256)
        assert (tmp_path / "new" / "here").read_bytes() == CONTENT

    def test_another_file_is_not_kept(self, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(CONTENT)
        with pytest.raises(ValueError, match="not the published file"):
            download((tmp_path / "there").as_uri(), tmp_path / "here", "0" * 64)
        assert not (tmp_path / "here").exists()

    def test_an_address_that_leads_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"):
            download((tmp_path / "nowhere").as_uri(), tmp_path / "here", "0" * 64)
