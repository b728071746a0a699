"""Recorded runs: a TOML file is built, fitted and evaluated into a results file.

The key `kind` of the file chooses the module: "image" `images`, "text" `texts` and `sweeps`.
"""

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
