"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds, schedules -> models -> evaluation -> training -> generation ->
plots.
"""

from tutvae import generation, plots, schedules
from tutvae.bounds import Elbo, LabelElbo, importance_weighted_bound
from tutvae.data.batches.images import ImageBatches
from tutvae.data.batches.labelled import MixedBatches, label_subset
from tutvae.data.batches.text import Batches, EncodedTexts, TextBatch
from tutvae.data.corpora import ag_news, digits, from_files, mnist, ptb, yahoo, yelp
from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import TextPredictor, bag_of_words, code_classifier
from tutvae.evaluation.clustering import compare_clusters, mixture_clusters
from tutvae.evaluation.diagnostics import mutual_information, probe, sample_codes
from tutvae.evaluation.report import Report, encode, evaluate
from tutvae.experiments.published import published_corpora, published_rows, recorded_rows
from tutvae.experiments.records import read_result, recorded_result, summary
from tutvae.generation.conditional import (
    LabelAgreement,
    change_label,
    label_agreement,
    sample_with_label,
)
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
from tutvae.saving import TrainedModel, load, push_to_hub, save
from tutvae.training.loop import History, fit

__version__ = "0.2.0"

__all__ = [
    "VAE",
    "Batches",
    "Corpus",
    "DilatedConvDecoder",
    "Elbo",
    "EncodedTexts",
    "History",
    "ImageBatches",
    "Images",
    "LSTMDecoder",
    "LSTMEncoder",
    "LabelAgreement",
    "LabelElbo",
    "LanguageModel",
    "MixedBatches",
    "Report",
    "ReviewGrammar",
    "SemiSupervisedTextVAE",
    "TextBatch",
    "TextClassifier",
    "TextPredictor",
    "TextVAE",
    "Texts",
    "Tokenizer",
    "TrainedModel",
    "ag_news",
    "bag_of_words",
    "change_label",
    "code_classifier",
    "compare_clusters",
    "digits",
    "encode",
    "evaluate",
    "fit",
    "from_files",
    "generation",
    "importance_weighted_bound",
    "impute",
    "initialise_encoder",
    "interpolate_texts",
    "label_agreement",
    "label_subset",
    "load",
    "mixture_clusters",
    "mnist",
    "mutual_information",
    "plots",
    "probe",
    "ptb",
    "published_corpora",
    "published_rows",
    "push_to_hub",
    "read_result",
    "reconstruct",
    "recorded_result",
    "recorded_rows",
    "sample_codes",
    "sample_texts",
    "sample_with_label",
    "save",
    "schedules",
    "summary",
    "yahoo",
    "yelp",
]
