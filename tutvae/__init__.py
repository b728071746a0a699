"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds, schedules -> models -> evaluation -> training -> generation ->
plots.
"""

from tutvae import generation, plots, schedules
from tutvae.bounds import Elbo
from tutvae.data.batches.labelled import MixedBatches, label_subset
from tutvae.data.batches.text import Batches, TextBatch
from tutvae.data.corpora import ag_news, digits, from_files, mnist, ptb, yahoo, yelp
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import TextPredictor
from tutvae.evaluation.clustering import compare_clusters
from tutvae.evaluation.diagnostics import mutual_information, probe
from tutvae.evaluation.report import Report, encode, evaluate
from tutvae.experiments.runs import TrainedRun, load_run
from tutvae.generation.conditional import change_label, sample_with_label
from tutvae.generation.texts import impute, interpolate_texts, reconstruct, sample_texts
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
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.training.loop import History, fit

__version__ = "0.2.0"

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
