"""Recorded runs: a TOML file is built, fitted and evaluated into a results file.

The key `kind` of the file chooses the module: "image" `images`, "text" `texts` and `sweeps`,
"classification" `classification`.
"""

from tutvae.experiments.classification_sections import ClassificationExperiment
from tutvae.experiments.images import (
    CorpusSection,
    EvaluationSection,
    ImageExperiment,
    ModelSection,
    TrainingSection,
    load_corpus,
)
from tutvae.experiments.loading import load_experiment, validate_experiment
from tutvae.experiments.running import run_experiment
from tutvae.experiments.sections import Experiment
from tutvae.experiments.text_sections import TextExperiment

__all__ = [
    "ClassificationExperiment",
    "CorpusSection",
    "EvaluationSection",
    "Experiment",
    "ImageExperiment",
    "ModelSection",
    "TextExperiment",
    "TrainingSection",
    "load_corpus",
    "load_experiment",
    "run_experiment",
    "validate_experiment",
]
