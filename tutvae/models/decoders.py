"""The decoders by the name that experiment files give them."""

from tutvae.models.bag_decoder import BagDecoder
from tutvae.models.conv_decoder import DilatedConvDecoder
from tutvae.models.gru_decoder import GRUDecoder
from tutvae.models.lstm_decoder import LSTMDecoder
from tutvae.models.projected_lstm_decoder import ProjectedLSTMDecoder
from tutvae.models.protocols import Decoder

# A new decoder is registered here, once.
DECODERS: dict[str, type[Decoder]] = {
    "lstm": LSTMDecoder,
    "dilated_cnn": DilatedConvDecoder,
    "gru": GRUDecoder,
    "bag": BagDecoder,
    "projected_lstm": ProjectedLSTMDecoder,
}
