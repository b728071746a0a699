"""Greedy generation with a dilated-CNN decoder: step by step against the full decoder each time.

Both ways write the same tokens, in one run and on the same weights, which are random: the time
does not depend on them. The full decoder turns only its last position into logits.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from tutvae.models.conv_decoder import DILATIONS, DilatedConvDecoder

BOS = 1


def stepwise(decoder: DilatedConvDecoder, z: Tensor, length: int) -> Tensor:
    state = decoder.start(z)
    tokens = [torch.full((len(z),), BOS)]
    for _ in range(length):
        logits, state = decoder.step(tokens[-1], state)
        tokens.append(logits.argmax(-1))
    return torch.stack(tokens, dim=1)


def full_passes(decoder: DilatedConvDecoder, z: Tensor, length: int) -> Tensor:
    tokens = torch.full((len(z), 1), BOS)
    for _ in range(length):
        logits = decoder.project(decoder(tokens, z)[:, -1])
        tokens = torch.cat([tokens, logits.argmax(-1)[:, None]], dim=1)
    return tokens


def seconds(write: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = perf_counter()
    tokens = write()
    return tokens, perf_counter() - start


def compare(decoder: DilatedConvDecoder, documents: int, length: int) -> str:
    z = torch.randn(documents, decoder.latent_size)
    for write in (stepwise, full_passes):  # the first calls set things up
        write(decoder, z, 3)
    written, fast = seconds(lambda: stepwise(decoder, z, length))
    again, slow = seconds(lambda: full_passes(decoder, z, length))
    same = (written == again).all(1).sum()
    return f"{documents:9} {fast:9.2f} s {slow:12.2f} s {slow / fast:7.1f}x {same:8} of {documents}"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--documents", type=int, nargs="+", default=[1, 16], help="written at once")
    add("--tokens", type=int, default=200, help="length of each")
    add("--dilations", choices=list(DILATIONS), default="large", help="the decoder's preset")
    add("--vocabulary", type=int, default=10_000, help="vocabulary size, V")
    add("--channels", type=int, default=256, help="width of the decoder, C")
    sizes = parser.parse_args()

    torch.manual_seed(0)
    decoder = DilatedConvDecoder(
        sizes.vocabulary, sizes.channels, sizes.channels, 32, dilations=sizes.dilations
    ).eval()
    print(
        f"{sizes.tokens} tokens; {sizes.dilations}, receptive field {decoder.receptive_field}, "
        f"V {sizes.vocabulary}, C {sizes.channels}; torch {torch.__version__} on the CPU "
        f"({platform.machine()}), threads: {torch.get_num_threads()}"
    )
    print("documents    stepwise    full passes   ratio   same tokens")
    for documents in sizes.documents:
        print(compare(decoder, documents, sizes.tokens), flush=True)


if __name__ == "__main__":
    main()
