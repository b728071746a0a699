"""Every registered decoder, and variants of some: each gets every test of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from tutvae.models import DECODERS, Decoder, DilatedConvDecoder, LSTMDecoder, tie_weights

Builder = Callable[..., Decoder]


def of_class(
    decoder: Callable[..., Decoder], vocabulary_size: int, latent_size: int, **options: object
) -> Decoder:
    return decoder(vocabulary_size, 5, 14, latent_size, **options)


def tied_lstm(vocabulary_size: int, latent_size: int, **options: object) -> Decoder:
    decoder = LSTMDecoder(vocabulary_size, 7, 7, latent_size, **options)
    tie_weights(decoder)
    return decoder


BUILDERS: dict[str, Builder] = {
    **{name: partial(of_class, decoder) for name, decoder in DECODERS.items()},
    "lstm-code-to-state": partial(of_class, LSTMDecoder, code_to_inputs=False),
    "lstm-code-to-inputs": partial(of_class, LSTMDecoder, code_to_state=False),
    "lstm-tied": tied_lstm,
    "dilated_cnn-small": partial(of_class, DilatedConvDecoder, dilations="small"),
    "dilated_cnn-wide": partial(of_class, DilatedConvDecoder, dilations=[1, 3], width=4),
}


READERS = {name: make for name, make in BUILDERS.items() if name != "bag"}


def scaled(make: Builder) -> Builder:
    """A function from V, Z and options to a decoder in eval mode.

    Its parameters are `scale` times their start, so that it is far from linear and from uniform.
    """

    def build(
        vocabulary_size: int,
        latent_size: int,
        *,
        seed: int = 0,
        scale: float = 2.0,
        **options: object,
    ) -> Decoder:
        torch.manual_seed(seed)
        decoder = make(vocabulary_size, latent_size, **options)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(scale)
        return decoder.eval()

    return build


@pytest.fixture(params=list(BUILDERS.values()), ids=list(BUILDERS))
def build(request: pytest.FixtureRequest) -> Builder:
    """Builds a decoder of any kind: see `scaled`."""
    return scaled(request.param)


@pytest.fixture(params=list(READERS.values()), ids=list(READERS))
def reader(request: pytest.FixtureRequest) -> Builder:
    """Builds a decoder that reads words: see `scaled`."""
    return scaled(request.param)
