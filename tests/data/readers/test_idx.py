from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tutvae.data.readers.idx import read_idx

Pack = Callable[[np.ndarray], bytes]

IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


@given(
    array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=6)), packed=st.booleans()
)
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, idx_bytes: Pack, array: np.ndarray, packed: bool
) -> None:
    content = idx_bytes(array)
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_sizes_are_big_endian(tmp_path: Path, idx_bytes: Pack) -> None:
    (tmp_path / "x").write_bytes(idx_bytes(np.zeros((258, 1))))
    assert read_idx(tmp_path / "x").shape == (258, 1)


def test_no_images(tmp_path: Path, idx_bytes: Pack) -> None:
    (tmp_path / "x").write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    assert read_idx(tmp_path / "x").shape == (0, 28, 28)


@given(length=st.integers(0, 45))
def test_every_truncation_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, idx_bytes: Pack, length: int
) -> None:
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(idx_bytes(IMAGES)[:length])  # the whole file has 46 bytes
    with pytest.raises(ValueError, match=re.escape(str(path)) + " is (truncated|not an IDX file)"):
        read_idx(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content + b"\0", r"corrupt: shape \(2, 3, 5\) needs 46 bytes, found 47"),
        (lambda content: content[:-1], r"truncated: shape \(2, 3, 5\) needs 46 bytes, found 45"),
        (lambda content: b"P5" + content[2:], "not an IDX file"),
        (lambda content: b"\0\0\x0d" + content[3:], "holds IDX type 0x0d"),
        (lambda content: content[:7] + b"\x09" + content[8:], r"truncated: shape \(9, 3, 5\)"),
        (lambda content: content[:3] + b"\xff" + content[4:], "its header needs 1024 bytes"),
        (lambda content: b"", "not an IDX file"),
    ],
)
def test_each_fault_has_its_message(
    tmp_path: Path, idx_bytes: Pack, edit: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(edit(idx_bytes(IMAGES)))
    with pytest.raises(ValueError, match=message):
        read_idx(path)
