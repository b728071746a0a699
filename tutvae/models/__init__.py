"""The models: encoders, decoders, and the autoencoders made of them."""

from tutvae.models.conv_decoder import (
    CausalConv1d,
    DilatedConvDecoder,
    ResidualBlock,
)
from tutvae.models.decoders import LSTMDecoder, WordDropout, tie_weights
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.gru_decoder import GRUDecoder
from tutvae.models.protocols import Decoder, Encoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.models.text_vae import LanguageModel, TextVAE, initialise_encoder
from tutvae.models.vae import VAE, BernoulliDecoder, GaussianEncoder

# The decoders by the name that experiment files give them: a new one is registered here, once.
DECODERS: dict[str, type[Decoder]] = {
    "lstm": LSTMDecoder,
    "dilated_cnn": DilatedConvDecoder,
    "gru": GRUDecoder,
}

__all__ = [
    "DECODERS",
    "VAE",
    "BernoulliDecoder",
    "CausalConv1d",
    "Decoder",
    "DilatedConvDecoder",
    "Encoder",
    "GRUDecoder",
    "GaussianEncoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "LanguageModel",
    "ResidualBlock",
    "SemiSupervisedTextVAE",
    "TextClassifier",
    "TextVAE",
    "WordDropout",
    "initialise_encoder",
    "tie_weights",
]
