"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds, schedules -> models -> evaluation -> training -> generation ->
plots.
"""

from tutvae import generation, plots, schedules
from tutvae.bounds import Elbo
from tutvae.data.batching import Batches, TextBatch
from tutvae.data.corpora import ag_news, digits, from_files, mnist, ptb, yahoo, yelp
from tutvae.data.reviews import ReviewGrammar
from tutvae.data.tokenization import Tokenizer
from tutvae.diagnostics import mutual_information, probe
from tutvae.evaluation import Report, encode, evaluate
from tutvae.generation import impute, interpolate_texts, reconstruct, sample_texts
from tutvae.models import VAE, LanguageModel, LSTMDecoder, LSTMEncoder, TextVAE
from tutvae.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Batches",
    "Elbo",
    "History",
    "LSTMDecoder",
    "LSTMEncoder",
    "LanguageModel",
    "Report",
    "ReviewGrammar",
    "TextBatch",
    "TextVAE",
    "Tokenizer",
    "ag_news",
    "digits",
    "encode",
    "evaluate",
    "fit",
    "from_files",
    "generation",
    "impute",
    "interpolate_texts",
    "mnist",
    "mutual_information",
    "plots",
    "probe",
    "ptb",
    "reconstruct",
    "sample_texts",
    "schedules",
    "yahoo",
    "yelp",
]
