"""The models: encoders, decoders, and the autoencoders made of them.

>>> sorted(tutvae.models.DECODERS)
['dilated_cnn', 'gru', 'lstm']
"""

from tutvae.models.conv_decoder import (
    DILATIONS,
    CausalConv1d,
    DilatedConvDecoder,
    Preset,
    ResidualBlock,
)
from tutvae.models.decoders import DECODERS
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.gru_decoder import GRUDecoder
from tutvae.models.lstm_decoder import LSTMDecoder, WordDropout, tie_weights
from tutvae.models.protocols import (
    Decoder,
    Described,
    Encoder,
    LatentVariableModel,
    State,
    TrainableModel,
)
from tutvae.models.semi_supervised import Marginal, SemiSupervisedTextVAE
from tutvae.models.text_classifier import LabelHead, TextClassifier, check_labels
from tutvae.models.text_vae import (
    LanguageModel,
    TextVAE,
    check_tokens,
    document_log_likelihood,
    initialise_encoder,
    standard_normal,
    target_costs,
)
from tutvae.models.vae import VAE, BernoulliDecoder, GaussianEncoder

__all__ = [
    "DECODERS",
    "DILATIONS",
    "VAE",
    "BernoulliDecoder",
    "CausalConv1d",
    "Decoder",
    "Described",
    "DilatedConvDecoder",
    "Encoder",
    "GRUDecoder",
    "GaussianEncoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "LabelHead",
    "LanguageModel",
    "LatentVariableModel",
    "Marginal",
    "Preset",
    "ResidualBlock",
    "SemiSupervisedTextVAE",
    "State",
    "TextClassifier",
    "TextVAE",
    "TrainableModel",
    "WordDropout",
    "check_labels",
    "check_tokens",
    "document_log_likelihood",
    "initialise_encoder",
    "standard_normal",
    "target_costs",
    "tie_weights",
]
