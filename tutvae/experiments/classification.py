"""Experiments with `kind = "classification"`: accuracy against the number of labels."""

from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import model_validator

from tutvae.data.batches.labelled import label_subset
from tutvae.experiments import methods, sections
from tutvae.experiments.data import AnyCorpus, EncodedCorpus, ReviewsSection, labels_of
from tutvae.experiments.experiment import Context, Experiment, Run, Section
from tutvae.experiments.keys import Count, Listed, NotEmpty, Positive, Rate, Seeds, Variants
from tutvae.experiments.records import significant

Method = Literal[methods.Rival, "labels_only", "semi_supervised"]
# The sections that only one method needs.
NEEDED: dict[str, Method] = {"classifier": "labels_only", "semi_supervised": "semi_supervised"}
DIGITS = 5
MEASURED = ("valid", "test")


class LatentSection(Section):
    """`[model]`: dimensions of the code, Z."""

    latent_size: Count


class ClassifierSection(Section):
    """`[classifier]`: a `TextClassifier` of the encoder's sizes, so many steps of Adam."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    dropout: Rate = 0.0  # of the features, in training


class ClassificationExperiment(Experiment):
    """An experiment file with `kind = "classification"`. Chapter 8.

    Every variant is run with every method, number of labels and seed, of its own or the file's.
    All methods are given the same documents, cut and with the same words unknown, but for the
    frozen encoder, which reads them as they are written; a seed draws the same labels for all. The
    semi-supervised model meets the labelled documents again without their labels. Nothing is
    chosen on the validation or the test set: both accuracies are of the last step.

    The methods are the rivals of `tutvae.evaluation.rivals` by their names; "labels_only",
    the same encoder as a classifier of what has a label; and "semi_supervised".
    """

    kind: Literal["classification"]
    seeds: Seeds
    labels: Annotated[tuple[Count, ...], Listed, NotEmpty]
    methods: Annotated[tuple[Method, ...], Listed, NotEmpty]
    corpus: AnyCorpus
    encoder: sections.EncoderSection
    decoder: sections.AnyDecoder
    model: LatentSection
    training: sections.TrainingSection
    semi_supervised: sections.SemiSupervisedSection | None = None
    classifier: ClassifierSection | None = None
    variants: Variants | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> "ClassificationExperiment":
        """No run twice, the sections that the methods need, and nothing chosen on the way."""
        for key in ("seeds", "labels", "methods"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must differ from each other")
        for section, method in NEEDED.items():
            if method in self.methods and getattr(self, section) is None:
                raise ValueError(f"the method {method!r} needs a section [{section}]")
        if self.training.weights != "last" or self.training.patience is not None:
            advice = "leave out training.patience and training.weights"
            raise ValueError(f"all methods are measured after training.epochs epochs: {advice}")
        return self

    def alone(self, variant: str) -> list[Run]:
        """The runs of a variant: every method with every number of labels and seed."""
        return [self._run(variant, *x) for x in product(self.methods, self.labels, self.seeds)]

    def _run(self, variant: str, method: Method, labels: int, seed: int) -> Run:
        """A single run without the sections that it does not use."""
        unused = [section for section, needing in NEEDED.items() if method != needing]
        values: dict[str, Any] = {"methods": (method,), "labels": (labels,), "seeds": (seed,)}
        alone = self.model_copy(update=values | dict.fromkeys(unused))
        return Run(variant, seed, alone, {"method": method, "labels": labels})

    def load(self) -> EncodedCorpus:
        """Load the corpus; raise ValueError if it has no labels, or too few of a class."""
        data = self.corpus.build()
        for run in self.runs():  # before hours of training, not after
            label_subset(labels_of(data.train), run.keys["labels"], run.seed)
        return data

    def facts(self, data: EncodedCorpus) -> dict[str, Any]:
        """The hash of the corpus, and the accuracies that need no training."""
        counts = np.bincount(labels_of(data.test))
        facts = {
            "data_sha256": data.sha256,
            "majority_accuracy": significant(float(counts.max() / counts.sum()), DIGITS),
        }
        if isinstance(self.corpus, ReviewsSection):
            accuracy = self.corpus.grammar().bayes_accuracy(self.corpus.label)
            facts["bayes_accuracy"] = significant(accuracy._asdict(), DIGITS)
        return facts

    def train(self, data: EncodedCorpus, context: Context) -> dict[str, Any]:
        """Train one classifier, or go on with it, and measure its accuracy.

        Source: Kingma et al. (2014), section 4; Yang et al. (2017), section 4. Chapter 8.
        """
        (method,), (count,), (seed,) = self.methods, self.labels, self.seeds
        labels = labels_of(data.train)
        chosen = label_subset(labels, count, seed)
        torch.manual_seed(seed)
        setting = methods.Setting(self, data, chosen, int(labels.max()) + 1, context)
        classify, facts = methods.METHODS[method](setting)
        right = {name: classify(name) == labels_of(getattr(data, name)) for name in MEASURED}
        accuracy = {name: float(share.mean()) for name, share in right.items()}
        seconds = {"train_seconds": round(facts.pop("seconds"), 1)}
        return significant({"accuracy": accuracy} | facts, DIGITS) | seconds

    def figures(self, outcome: dict[str, Any]) -> str:
        """What a finished run achieved, in a few words."""
        accuracy, seconds = outcome["accuracy"], outcome["train_seconds"]
        measured = f"{accuracy['valid']:.3f} on valid, {accuracy['test']:.3f} on test"
        return f"accuracy {measured} ({seconds:.0f} s of training)"
