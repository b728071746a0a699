"""The decoders by name: one added here gets every test of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from tutvae.models.conv_decoder import DilatedConvDecoder
from tutvae.models.decoders import Decoder, LSTMDecoder, tie_weights

Builder = Callable[..., Decoder]


def lstm(vocabulary_size: int, latent_size: int, **options: object) -> Decoder:
    return LSTMDecoder(vocabulary_size, 5, 7, latent_size, **options)


def tied_lstm(vocabulary_size: int, latent_size: int, **options: object) -> Decoder:
    decoder = LSTMDecoder(vocabulary_size, 7, 7, latent_size, **options)
    tie_weights(decoder)
    return decoder


def cnn(vocabulary_size: int, latent_size: int, **options: object) -> Decoder:
    return DilatedConvDecoder(vocabulary_size, 5, 14, latent_size, **options)


DECODERS: dict[str, Builder] = {
    "lstm": lstm,
    "lstm-code-to-state": partial(lstm, code_to_inputs=False),
    "lstm-code-to-inputs": partial(lstm, code_to_state=False),
    "lstm-tied": tied_lstm,
    "cnn": cnn,
    "cnn-small": partial(cnn, dilations="small"),
    "cnn-wide": partial(cnn, dilations=[1, 3], width=4),
}


@pytest.fixture(params=list(DECODERS.values()), ids=list(DECODERS))
def build(request: pytest.FixtureRequest) -> Builder:
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
        decoder = request.param(vocabulary_size, latent_size, **options)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(scale)
        return decoder.eval()

    return build
