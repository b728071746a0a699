"""Writing: samples, reconstructions, paths between texts, gaps filled, texts of a class.

>>> trained = tutvae.load("sentences")
>>> z = tutvae.generation.sample_prior(trained.model_, 3)
>>> len(tutvae.generation.decode_codes(trained.model_, trained.tokenizer_, z))
3
"""

from tutvae.generation.conditional import change_label as change_label
from tutvae.generation.conditional import label_agreement as label_agreement
from tutvae.generation.conditional import sample_with_label as sample_with_label
from tutvae.generation.decoding import beam_search as beam_search
from tutvae.generation.decoding import fill as fill
from tutvae.generation.decoding import generate as generate
from tutvae.generation.texts import decode_codes as decode_codes
from tutvae.generation.texts import impute as impute
from tutvae.generation.texts import interpolate as interpolate
from tutvae.generation.texts import interpolate_texts as interpolate_texts
from tutvae.generation.texts import reconstruct as reconstruct
from tutvae.generation.texts import sample_prior as sample_prior
from tutvae.generation.texts import sample_texts as sample_texts
