"""Writing: samples, reconstructions, paths between texts, gaps filled, texts of a class.

>>> trained = tutvae.load("sentences")
>>> z = tutvae.generation.sample_prior(trained.model_, 3)
>>> len(tutvae.generation.decode_codes(trained.model_, trained.tokenizer_, z))
3
"""

from tutvae.generation.conditional import change_label, label_agreement, sample_with_label
from tutvae.generation.decoding import beam_search, fill, generate
from tutvae.generation.texts import (
    decode_codes,
    impute,
    interpolate,
    interpolate_texts,
    reconstruct,
    sample_prior,
    sample_texts,
)

__all__ = [
    "beam_search",
    "change_label",
    "decode_codes",
    "fill",
    "generate",
    "impute",
    "interpolate",
    "interpolate_texts",
    "label_agreement",
    "reconstruct",
    "sample_prior",
    "sample_texts",
    "sample_with_label",
]
