"""Generation: tokens a second, by the loop that published code has and by `generate`.

The recurrent decoder takes a step for every token in both. Of the dilated-CNN decoder, published
code makes a whole pass for every token, and ours a step, in which each block remembers its last
inputs. Weights are random, since the time does not depend on them, and no text ends early.

    python -m benchmarks.generation --documents 1 16 --tokens 200
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial

import torch
from torch import Tensor

import tutvae
from benchmarks import usual
from benchmarks.common import Row, V, Work, forward_gflop, measure, shown
from tutvae.generation.decoding import generate
from tutvae.models import DilatedConvDecoder, GRUDecoder
from tutvae.models.protocols import Decoder

MARKS = 3  # padding, start and end, which nobody is to write


@cache
def tokenizer_of(V: int) -> tutvae.Tokenizer:
    return tutvae.Tokenizer.train([" ".join(map(str, range(V - 4)))], max_vocabulary=V)


def never_ending(decoder: Decoder) -> Decoder:
    with torch.no_grad():
        decoder.output.bias[:MARKS] = -1e4
    return decoder.eval()


def writing(
    write: Callable[[Decoder, Tensor, int], Tensor], decoder: Decoder, z: Tensor, T: int
) -> Work:
    return lambda: write(decoder, z, T).numel()


def by_generate(decoder: Decoder, z: Tensor, length: int, temperature: float = 0) -> Tensor:
    tokenizer = tokenizer_of(decoder.vocabulary_size)
    return generate(decoder, z, tokenizer=tokenizer, max_length=length, temperature=temperature)


by_chance = partial(by_generate, temperature=1)


def small_writer() -> Decoder:
    return never_ending(GRUDecoder(V, 300, 256, 16))


def large_cnn_writer() -> Decoder:
    return never_ending(DilatedConvDecoder(V, 256, 256, 32, dilations="large"))


def recurrent(drawn: bool, documents: int = 64, length: int = 60, rounds: int = 5) -> Row:
    decoder, z = small_writer(), torch.randn(documents, 16)
    theirs, ours = (usual.drawn, by_chance) if drawn else (usual.greedy, by_generate)
    return measure(
        f"{'drawing' if drawn else 'writing'} {documents} texts, GRU",
        "tokens",
        {
            "usual": writing(theirs, decoder, z, length),
            "fp32": writing(ours, decoder, z, length),
            "bf16": writing(ours, deepcopy(decoder).bfloat16(), z, length),
        },
        threads=1,
        rounds=rounds,
        gflop=forward_gflop(decoder),
        published=None if drawn else 7_342 / 71,
    )


def convolutional(documents: int, length: int, rounds: int = 1) -> Row:
    decoder, z = large_cnn_writer(), torch.randn(documents, 32)
    return measure(
        f"writing {documents} text{'s' * (documents > 1)}, large CNN",
        "tokens",
        {
            "usual": writing(usual.full_passes, decoder, z, length),
            "fp32": writing(by_generate, decoder, z, length),
        },
        threads=1,
        rounds=rounds,
        gflop=forward_gflop(decoder),
    )


def rows(documents: Sequence[int] = (1, 16), length: int = 200) -> list[Row]:
    words = [recurrent(drawn) for drawn in (False, True)]
    return [*words, *(convolutional(count, length) for count in documents)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 16], help="by the CNN")
    parser.add_argument("--tokens", type=int, default=200, help="length of each")
    arguments = parser.parse_args()
    print(shown(rows(arguments.documents, arguments.tokens)))
