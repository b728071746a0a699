"""The IDX format, in which MNIST is published."""

import math
from pathlib import Path

import numpy as np

from tutvae.data.readers.files import read_bytes

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not: images `[N, height, width]`, say.

    The format: two zero bytes, a byte for the type, a byte for the number of dimensions, each
    size as a big-endian 32-bit integer, then the data. Anything else is a ValueError.
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path} is not an IDX file: it must start with two zero bytes")
    if content[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path} holds IDX type {content[2]:#04x}; only unsigned bytes are read")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise ValueError(f"{path} is truncated: its header needs {header} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "corrupt"
        raise ValueError(
            f"{path} is {state}: shape {shape} needs {expected} bytes, found {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
