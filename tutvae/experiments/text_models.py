"""The models of text experiments, built as their sections say."""

from __future__ import annotations

from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.text_sections import (
    ConvDecoderSection,
    EncoderSection,
    LSTMDecoderSection,
    TextExperiment,
)
from tutvae.models.conv_decoder import DilatedConvDecoder
from tutvae.models.decoders import LSTMDecoder, tie_weights
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.protocols import Decoder
from tutvae.models.text_vae import LanguageModel, TextVAE


def build_model(experiment: TextExperiment, tokenizer: Tokenizer) -> LanguageModel | TextVAE:
    """Make the model that an experiment describes, from torch's present random state."""
    latent_size = experiment.model.latent_size
    decoder = build_decoder(experiment.decoder, tokenizer, latent_size)
    if experiment.encoder is None or latent_size == 0:
        return LanguageModel(decoder)
    return TextVAE(build_encoder(experiment.encoder, tokenizer, latent_size), decoder)


def language_model_like(
    section: EncoderSection, tokenizer: Tokenizer, dropout: float
) -> LanguageModel:
    """Make a language model of an encoder's sizes, for the encoder to start from."""
    lstm = LSTMDecoderSection(
        kind="lstm",
        embedding_size=section.embedding_size,
        hidden_size=section.hidden_size,
        dropout=dropout,
    )
    return LanguageModel(build_decoder(lstm, tokenizer, latent_size=0))


def build_encoder(section: EncoderSection, tokenizer: Tokenizer, latent_size: int) -> LSTMEncoder:
    """Make an encoder."""
    return LSTMEncoder(
        len(tokenizer),
        section.embedding_size,
        section.hidden_size,
        latent_size,
        pooling=section.pooling,
    )


def build_decoder(
    section: LSTMDecoderSection | ConvDecoderSection, tokenizer: Tokenizer, latent_size: int
) -> Decoder:
    """Make a decoder."""
    V, E = len(tokenizer), section.embedding_size
    if isinstance(section, LSTMDecoderSection):
        decoder = LSTMDecoder(
            V,
            E,
            section.hidden_size,
            latent_size,
            dropout=section.dropout,
            word_dropout=section.word_dropout,
            unk_id=tokenizer.unk_id,
            bos_id=tokenizer.bos_id,
        )
        if section.tied:
            tie_weights(decoder)
        return decoder
    return DilatedConvDecoder(
        V,
        E,
        section.channels,
        latent_size,
        dilations=section.dilations,
        width=section.width,
        dropout=section.dropout,
        word_dropout=section.word_dropout,
        unk_id=tokenizer.unk_id,
        bos_id=tokenizer.bos_id,
    )
