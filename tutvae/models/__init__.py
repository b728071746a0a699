"""The models: encoders, decoders, and the autoencoders made of them.

>>> sorted(tutvae.models.DECODERS)
['bag', 'dilated_cnn', 'gru', 'lstm', 'projected_lstm']
"""

import sys

from tutvae.models.bag_decoder import BagDecoder as BagDecoder
from tutvae.models.conv_decoder import DILATIONS as DILATIONS
from tutvae.models.conv_decoder import CausalConv1d as CausalConv1d
from tutvae.models.conv_decoder import DilatedConvDecoder as DilatedConvDecoder
from tutvae.models.conv_decoder import Preset as Preset
from tutvae.models.conv_decoder import ResidualBlock as ResidualBlock
from tutvae.models.decoders import DECODERS as DECODERS
from tutvae.models.encoders import BagEncoder as BagEncoder
from tutvae.models.encoders import BiLSTMEncoder as BiLSTMEncoder
from tutvae.models.encoders import LSTMEncoder as LSTMEncoder
from tutvae.models.gru_decoder import GRUDecoder as GRUDecoder
from tutvae.models.lstm_decoder import LSTMDecoder as LSTMDecoder
from tutvae.models.lstm_decoder import WordDropout as WordDropout
from tutvae.models.lstm_decoder import tie_weights as tie_weights
from tutvae.models.projected_lstm_decoder import ProjectedLSTMDecoder as ProjectedLSTMDecoder
from tutvae.models.protocols import Decoder as Decoder
from tutvae.models.protocols import Described as Described
from tutvae.models.protocols import Encoder as Encoder
from tutvae.models.protocols import LatentVariableModel as LatentVariableModel
from tutvae.models.protocols import State as State
from tutvae.models.protocols import TrainableModel as TrainableModel
from tutvae.models.refined_text_vae import RefinedTextVAE as RefinedTextVAE
from tutvae.models.semi_supervised import Marginal as Marginal
from tutvae.models.semi_supervised import SemiSupervisedTextVAE as SemiSupervisedTextVAE
from tutvae.models.text_classifier import LabelHead as LabelHead
from tutvae.models.text_classifier import TextClassifier as TextClassifier
from tutvae.models.text_classifier import check_labels as check_labels
from tutvae.models.text_vae import LanguageModel as LanguageModel
from tutvae.models.text_vae import TextVAE as TextVAE
from tutvae.models.text_vae import check_tokens as check_tokens
from tutvae.models.text_vae import document_log_likelihood as document_log_likelihood
from tutvae.models.text_vae import initialise_encoder as initialise_encoder
from tutvae.models.text_vae import standard_normal as standard_normal
from tutvae.models.text_vae import target_costs as target_costs
from tutvae.models.vae import VAE as VAE
from tutvae.models.vae import BernoulliDecoder as BernoulliDecoder
from tutvae.models.vae import GaussianEncoder as GaussianEncoder

# All of these; the modules that they come from are names in here, too.
__all__ = [x for x in dir() if x[0] != "_" and x != "sys" and f"{__name__}.{x}" not in sys.modules]
