"""Text VAEs with scikit-learn's contract: `fit(texts)`, `transform`, `predict`, `score`.

An estimator describes its training as an experiment file does, which `tutvae train my.csv` writes.
"""

import inspect
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn import base
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch.random import fork_rng

from tutvae import model_folder
from tutvae.data.corpus import Corpus, Texts
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import TextPredictor
from tutvae.evaluation.report import Report
from tutvae.evaluation.verdict import Diagnosis, empty_code_line
from tutvae.experiments.provenance import data_sha256
from tutvae.experiments.sweeps import validate_experiment
from tutvae.experiments.text import TextExperiment, in_order
from tutvae.generation.conditional import sample_with_label
from tutvae.generation.text_model import TextModel, as_documents
from tutvae.model_folder import TrainedModel
from tutvae.models import DECODERS
from tutvae.training.checkpoints import load_weights
from tutvae.training.engine import Precision
from tutvae.training.loop import History, fit
from tutvae.training.run_folder import RunFolder

if TYPE_CHECKING:
    from typing_extensions import Self

# Of so many held-out documents, with so few samples, `fit` reports.
MEASURED, SAMPLES = 1_000, 20
NO_LABEL = -1
# Training takes so many epochs, or with fewer documents than many so many steps.
EPOCHS, STEPS, MANY = 16, 2_000, 10_000
TOKENIZERS = ("bpe", "words")
# What reads texts to classify: one layer on the counts of words.
BAG = {"kind": "bag", "embedding_size": 0, "hidden_size": 256, "dropout": 0.5}
# Parameters that change nothing of what is learnt.
NOT_THE_MODEL = {"device", "progress", "run_folder"}


# A dataclass, because its constructor does what scikit-learn asks: it stores, and no more.
@dataclass(eq=False, repr=False, kw_only=True)
class SentenceVAE(
    base.ClassNamePrefixFeaturesOutMixin, base.TransformerMixin, TextModel, base.BaseEstimator
):
    """A text VAE for your own sentences, as a scikit-learn transformer.

    `fit` learns a tokenizer and a `TextVAE` from texts and keeps the epoch that does best on
    those it holds out. `transform` gives codes `[N, Z]`, `inverse_transform` texts.

    Args:
        rate: nats of KL to hold, against an empty code (`Elbo.loss`); None: the bound itself.
        latent_size: dimensions of the code, Z; 0 makes a language model of the same decoder.
        decoder: a name of `tutvae.models.DECODERS`, or a table as in an experiment file, such as
            `{"kind": "dilated_cnn", "embedding_size": 128, "channels": 128}`.
        encoder: "lstm", or "bag", which counts words; or a table.
        embedding_size: width of a token's vector, E.
        hidden_size: width of the states of encoder and decoder, H.
        dropout: of the decoder, in training.
        tokenizer: "bpe", byte-pair encoding, which knows every word; "words"; or a `Tokenizer`.
        vocabulary_size: largest vocabulary, V; of byte-pair encoding only what occurs ten times.
        max_length: longer texts are cut to so many tokens, marks included.
        epochs: most passes over the texts; by default 16, or 2,000 steps with few texts.
        patience: epochs without a better bound that end the training; by default a quarter of all.
        batch_size: texts a step, B.
        learning_rate: of Adam, at first; along a cosine it falls to zero over all epochs.
        validation_fraction: of the texts, held out to choose the best epoch by.
        precision: "fp32", "bf16" or "fp16".
        device: the fastest at hand by default.
        progress: show a bar.
        run_folder: where to keep checkpoints: an interrupted `fit` goes on from there.
        random_state: a seed, or what scikit-learn makes one of.

    Attributes:
        model_: the trained `TextVAE`, or `LanguageModel`.
        tokenizer_: its tokenizer.
        history_: of the training, one record an epoch.
        seed_: of the training, drawn from `random_state`.
        report_: of the texts held out, a `Report`.

    TypeError if a text is no string; ValueError if a parameter is out of range, or there are too
    few texts.

    >>> tiny = {"tokenizer": "words", "rate": 2, "latent_size": 2, "hidden_size": 32}
    >>> vae = tutvae.SentenceVAE(**tiny, learning_rate=0.02, epochs=20, progress=False)
    >>> vae.fit(30 * ["so good", "so bad", "very good", "very bad"]).transform(["so bad"]).shape
    (1, 2)

    Source: Bowman et al. (2016). Chapters 4, 5 and 10.
    """

    rate: float | None = 5.0
    latent_size: int = 32
    decoder: str | dict[str, Any] = "lstm"
    encoder: str | dict[str, Any] = "lstm"
    embedding_size: int = 128
    hidden_size: int = 256
    dropout: float = 0.3
    tokenizer: str | Tokenizer = "bpe"
    vocabulary_size: int = 4_000
    max_length: int = 64
    epochs: int | None = None
    patience: int | None = None
    batch_size: int = 32
    learning_rate: float = 4e-3
    validation_fraction: float = 0.1
    precision: Precision = "fp32"
    device: torch.device | str | None = None
    progress: bool | None = True
    run_folder: str | Path | None = None
    random_state: int | np.random.RandomState | None = 0

    def fit(self, texts: Any, y: Any = None, *, valid: Any = None) -> "Self":
        """Train on texts, anything that `as_documents` reads; pipelines give `y`, too.

        The best epoch is chosen by the texts `valid`, or by some that are held out.
        """
        return self._fit(Texts(as_documents(texts)), valid)

    # Here once more, because scikit-learn's `set_output` heeds what a class itself defines.
    def transform(self, texts: Any) -> np.ndarray:
        """Encode N texts: the means of their posteriors, `[N, Z]`."""
        return super().transform(texts)

    @property
    def _n_features_out(self) -> int:
        """What `get_feature_names_out` and `set_output` ask for: the columns of a code."""
        return self._model().latent_size

    def score(self, texts: Any, y: Any = None) -> float:
        """Return the mean of log p(x), nats a text: the larger, the better."""
        return float(self.score_samples(texts).mean())

    def description(self, documents: int = MANY, **corpus: Any) -> dict[str, Any]:
        """Describe the training as the tables of an experiment file.

        The default of `epochs` goes by the number of documents; `corpus` is what `[corpus]` says
        of them, by default that they are in memory.
        """
        steps = -(-documents // self.batch_size) if self.batch_size > 0 else 1
        epochs = max(EPOCHS, -(-STEPS // max(1, steps))) if self.epochs is None else self.epochs
        vocabulary = {"vocabulary_size": self.vocabulary_size, "max_length": self.max_length}
        made = {} if isinstance(self.tokenizer, Tokenizer) else {"tokenizer": self.tokenizer}
        training = {
            "epochs": epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "learning_rate_schedule": "cosine",
            "max_grad_norm": 5.0,
            "patience": max(1, round(epochs / 4)) if self.patience is None else self.patience,
            "weights": "best",
            "precision": self.precision,
        }
        return {
            "name": type(self).__name__,
            "kind": "text",
            "seed": self._seed(),
            "corpus": (corpus or {"name": "files", "train": "memory"}) | made | vocabulary,
            "encoder": self._table(self.encoder, pooling="max"),
            "decoder": self._table(self.decoder, dropout=self.dropout),
            "model": {"latent_size": self.latent_size},
            "training": training | ({"rate": self.rate} if self.rate else {}),
            "evaluation": {"importance_samples": SAMPLES, "max_examples": MEASURED},
        }

    def diagnose(self, texts: Any, **options: Any) -> Diagnosis:
        """Examine the model on texts, and its training; the options are `tutvae.diagnose`'s."""
        self._model()
        # What came after the best epoch left no trace in the model.
        kept = self.history_.records
        if kept and self.description()["training"]["weights"] == "best":
            kept = kept[: int(self.history_.best["epoch"])]
        return super().diagnose(texts, **{"history": History(kept)} | options)

    def save(self, folder: str | Path) -> Path:
        """Write all that `tutvae.load` needs into a new folder; return it. See `tutvae.save`."""
        return model_folder.save(
            self._model(),
            folder,
            tokenizer=self.tokenizer_,
            configuration=self._configuration() | {"history": self.history_.records},
            label_names=[str(name) for name in getattr(self, "classes_", ())] or None,
            report=self.report_,
        )

    @classmethod
    def from_trained(cls, trained: TrainedModel) -> "Self":
        """Make a fitted estimator of what its folder holds; `tutvae.load` calls this."""
        configuration = trained.configuration
        parameters = dict(configuration["parameters"])
        if parameters["tokenizer"] not in TOKENIZERS:
            parameters["tokenizer"] = trained.tokenizer_
        estimator = cls(**parameters)
        estimator.model_, estimator.tokenizer_ = trained.model_, trained.tokenizer_
        estimator.report_, estimator.seed_ = trained.report, parameters["random_state"]
        estimator.history_ = History(configuration.get("history", ()))
        if "classes" in configuration:
            estimator.classes_ = np.array(configuration["classes"])
        return estimator

    def _configuration(self) -> dict[str, Any]:
        """Tell what `save` writes beside the weights: class and parameters, ready for JSON."""
        parameters = {k: v for k, v in self.get_params().items() if k not in NOT_THE_MODEL}
        if isinstance(self.tokenizer, Tokenizer):
            parameters["tokenizer"] = self.tokenizer.fingerprint
        parameters["random_state"] = self.seed_
        return {"estimator": type(self).__name__, "parameters": parameters}

    def _table(self, part: str | dict[str, Any], **options: Any) -> dict[str, Any]:
        """The table of an encoder or a decoder; of a mere name, with this estimator's sizes."""
        if not isinstance(part, str):
            return part
        sizes = {"embedding_size": self.embedding_size, "hidden_size": self.hidden_size}
        if part in DECODERS:
            # V, E, H and Z come first, whatever the constructor calls them.
            known = list(inspect.signature(DECODERS[part]).parameters)
            sizes = dict(zip(known[1:3], sizes.values(), strict=True))
        return {"kind": part} | sizes | options

    def _seed(self) -> int:
        state = self.random_state
        if isinstance(state, int | np.integer):
            return int(state)
        return check_random_state(state).randint(2**31)

    def _fit(self, texts: Texts, valid: Any) -> "Self":
        """Train on texts, and on their labels if there are some; measure on those held out."""
        experiment = validate_experiment(self.description(len(texts)))
        assert isinstance(experiment, TextExperiment)
        self.seed_ = experiment.seed or 0
        data = self._split(texts, valid)
        given, train = self.tokenizer, experiment.corpus.train_tokenizer
        self.tokenizer_ = given if isinstance(given, Tokenizer) else train(data.train.texts)
        self.model_, self.history_ = self._trained(experiment, data)
        measured = data.valid.texts[:MEASURED]
        self.report_: Report | None = self.evaluate(measured, importance_samples=SAMPLES)
        if line := empty_code_line(self.report_):
            warnings.warn(line, stacklevel=3)
        return self

    def _split(self, texts: Texts, valid: Any) -> Corpus[Texts]:
        """Hold out what the best epoch is chosen by, unless that is given."""
        share = self.validation_fraction
        if not 0 < share < 1:
            raise ValueError(f"validation_fraction must be between 0 and 1, not {share}")
        order = np.random.default_rng(self.seed_).permutation(len(texts))
        if texts.labels is not None:  # as long as there are others, none with a label is held out
            order = order[np.argsort(np.asarray(texts.labels)[order] >= 0, kind="stable")]
        cut = 0 if valid is not None else max(1, round(share * len(texts)))
        if cut >= len(texts):
            remedy = "give more, or valid=..., texts to choose the best epoch by"
            few = f"{len(texts)} texts are too few to train on and to hold some out"
            raise ValueError(f"{few}: {remedy}")
        train = texts.part(np.sort(order[cut:]))
        held_out = texts.part(np.sort(order[:cut])) if valid is None else Texts(as_documents(valid))
        return Corpus(type(self).__name__, train, held_out, Texts([]))

    def _trained(self, experiment: TextExperiment, data: Corpus[Texts]) -> tuple[Any, Any]:
        """Build a model and fit it: the model of its best epoch, and the history."""
        identity = self._configuration() | {"data_sha256": data_sha256(data)}
        # The global random state is not the estimator's.
        with TemporaryDirectory() as temporary, fork_rng():
            torch.manual_seed(self.seed_)
            model = experiment.build(self.tokenizer_, len(data.train.label_names or ()))
            batches = experiment.batches(self._encoded(data.train))
            folder = RunFolder(self.run_folder or temporary)
            history = fit(
                model,
                batches,
                valid=in_order(self._encoded(data.valid.texts)),
                **experiment.training.build(model, batches),
                device=self.device,
                run_folder=folder.path,
                configuration=identity,
                progress=self.progress,
            )
            if experiment.training.weights == "best":
                load_weights(model, folder.best)
        return model.eval(), history

    def _model(self) -> Any:
        check_is_fitted(self, "model_")
        return self.model_

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that the input is one column of strings."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class SemiSupervisedClassifier(base.ClassifierMixin, SentenceVAE):
    """A classifier for few labels and many texts: a `SemiSupervisedTextVAE`.

    A text without a label has -1, None or NaN in its place, and teaches the language. All
    parameters of `SentenceVAE` are parameters here, too. By default texts are read and written
    as bags of words: what `sample` writes is no sentence. With `decoder="lstm"` it is one, and
    the texts without a label teach less. Of few texts the bound is best before their labels are
    learnt: the last epoch is kept, and nothing but a `patience` that is given ends it early.

    Args:
        classification_weight: factor of the classification term of the loss, often called alpha.
        labelled_weight: of the bound of the texts with a label.
        labelled_size: texts with a label that join every batch.

    Attributes:
        classes_: the labels, sorted, `[K]`.

    ValueError if there are fewer than two classes, not as many labels as texts, or labels are both
    numbers and names.

    >>> tiny = {"latent_size": 2, "hidden_size": 32, "dropout": 0, "rate": 2, "progress": False}
    >>> model = tutvae.SemiSupervisedClassifier(**tiny, learning_rate=0.01, epochs=40)
    >>> texts = 30 * ["so good", "so bad", "very good", "very bad"]
    >>> labels = ["+", "-", "+", "-", *116 * [None]]
    >>> model.fit(texts, labels).predict(["so good", "very bad"]).tolist()
    ['+', '-']

    Source: Kingma et al. (2014), equations 6 to 9; Yang et al. (2017). Chapter 8.
    """

    latent_size: int = 8
    encoder: str | dict[str, Any] = field(default_factory=BAG.copy)
    decoder: str | dict[str, Any] = "bag"
    tokenizer: str | Tokenizer = "words"
    vocabulary_size: int = 10_000
    max_length: int = 200
    classification_weight: float = 10.0
    labelled_weight: float = 0.1
    labelled_size: int = 8

    def fit(self, texts: Any, y: Any = None, *, valid: Any = None) -> "Self":
        """Train on N texts and their labels `[N]`, numbers or names; see `SentenceVAE.fit`."""
        documents = as_documents(texts)
        labels = [] if y is None else list(y)
        if getattr(y, "ndim", 1) != 1:
            raise ValueError(f"labels must be one column, not an array {list(y.shape)}: choose one")
        if len(labels) != len(documents):
            needed = f"{len(documents)} texts need {len(documents)} labels, -1 for unknown ones"
            raise ValueError(f"{needed}, not {len(labels)}")
        is_known = np.array([_is_known(label) for label in labels])
        known = [label for label in labels if _is_known(label)]
        if len({isinstance(label, str) for label in known}) > 1:
            raise ValueError("labels are both numbers and names: make them all names, by str()")
        self.classes_, found = np.unique(known, return_inverse=True)
        numbers = np.full(len(labels), NO_LABEL)
        numbers[is_known] = found
        names = list(map(str, self.classes_))
        return self._fit(Texts(documents, numbers.tolist(), label_names=names), valid)

    def predict_proba(self, texts: Any) -> np.ndarray:
        """Return q(y|x) of N texts, `[N, K]`."""
        predictor = TextPredictor(self._model(), self.tokenizer_, max_length=self.max_length)
        return predictor.predict_proba(as_documents(texts))

    def predict_log_proba(self, texts: Any) -> np.ndarray:
        """Return log q(y|x) of N texts, `[N, K]`."""
        return np.log(self.predict_proba(texts))

    def predict(self, texts: Any) -> np.ndarray:
        """Return the most probable label of N texts, `[N]`."""
        q = self.predict_proba(texts)  # first, as it says so before `fit`
        return self.classes_[q.argmax(1)]

    def sample(self, count: int = 10, *, label: Any = None, **options: Any) -> list[str]:
        """Write new texts of a label, by default of ones drawn from p(y); see `sample_texts`."""
        if label is None:
            return super().sample(count, **options)
        model = self._model()
        if label not in self.classes_.tolist():
            raise ValueError(f"label must be one of {self.classes_.tolist()}, not {label!r}")
        labels = np.full(count, self.classes_.tolist().index(label))
        return sample_with_label(model, self.tokenizer_, labels, **self._writing(options))

    def description(self, documents: int = MANY, **corpus: Any) -> dict[str, Any]:
        """Describe the training as the tables of an experiment file; see `SentenceVAE`."""
        keys = ("classification_weight", "labelled_weight", "labelled_size")
        section = {key: getattr(self, key) for key in keys}
        table = super().description(documents, **corpus) | {"semi_supervised": section}
        table["training"]["weights"] = "last"
        if self.patience is None:
            del table["training"]["patience"]
        return table

    def _configuration(self) -> dict[str, Any]:
        return super()._configuration() | {"classes": self.classes_.tolist()}


def _is_known(label: Any) -> bool:
    """Whether it is a label: none of -1, None, NaN and pandas' NA, which is not even compared."""
    if label is None or type(label).__name__ == "NAType":
        return False
    return bool(label == label and label != NO_LABEL)
