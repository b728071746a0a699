"""The models: encoders, decoders, and the autoencoders made of them."""

from tutvae.models.decoders import Decoder, LSTMDecoder, WordDropout
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.text_vae import LanguageModel, TextVAE
from tutvae.models.vae import VAE, BernoulliDecoder, GaussianEncoder

__all__ = [
    "VAE",
    "BernoulliDecoder",
    "Decoder",
    "GaussianEncoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "LanguageModel",
    "TextVAE",
    "WordDropout",
]
