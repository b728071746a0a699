"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds, schedules -> models -> evaluation -> training -> generation ->
plots.
"""

from tutvae import generation, plots, schedules
from tutvae.bounds import Elbo
from tutvae.classification import TextPredictor
from tutvae.clustering import compare_clusters
from tutvae.conditional_generation import change_label, sample_with_label
from tutvae.data.batching import Batches, TextBatch
from tutvae.data.corpora import ag_news, digits, from_files, mnist, ptb, yahoo, yelp
from tutvae.data.labels import MixedBatches, label_subset
from tutvae.data.reviews import ReviewGrammar
from tutvae.data.tokenization import Tokenizer
from tutvae.diagnostics import mutual_information, probe
from tutvae.evaluation import Report, encode, evaluate
from tutvae.generation import impute, interpolate_texts, reconstruct, sample_texts
from tutvae.models import (
    VAE,
    DilatedConvDecoder,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextClassifier,
    TextVAE,
    initialise_encoder,
)
from tutvae.runs import TrainedRun, load_run
from tutvae.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Batches",
    "DilatedConvDecoder",
    "Elbo",
    "History",
    "LSTMDecoder",
    "LSTMEncoder",
    "LanguageModel",
    "MixedBatches",
    "Report",
    "ReviewGrammar",
    "SemiSupervisedTextVAE",
    "TextBatch",
    "TextClassifier",
    "TextPredictor",
    "TextVAE",
    "Tokenizer",
    "TrainedRun",
    "ag_news",
    "change_label",
    "compare_clusters",
    "digits",
    "encode",
    "evaluate",
    "fit",
    "from_files",
    "generation",
    "impute",
    "initialise_encoder",
    "interpolate_texts",
    "label_subset",
    "load_run",
    "mnist",
    "mutual_information",
    "plots",
    "probe",
    "ptb",
    "reconstruct",
    "sample_texts",
    "sample_with_label",
    "schedules",
    "yahoo",
    "yelp",
]
