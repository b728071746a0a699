"""Recorded runs: a TOML file is built, fitted and evaluated into a results file.

The key `kind` of the file chooses the module: "image" `images`, "text" `text`, "classification"
`classification`. What they share is in `experiment`; `sweeps` reads files and does their runs.
"""

from tutvae.experiments.classification import ClassificationExperiment
from tutvae.experiments.experiment import Experiment
from tutvae.experiments.images import ImageExperiment
from tutvae.experiments.sweeps import load_experiment, run_experiment, validate_experiment
from tutvae.experiments.text import TextExperiment

__all__ = [
    "ClassificationExperiment",
    "Experiment",
    "ImageExperiment",
    "TextExperiment",
    "load_experiment",
    "run_experiment",
    "validate_experiment",
]
