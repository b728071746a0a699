"""Recorded runs: a TOML file is built, fitted and evaluated into a results file.

The key `kind` of the file chooses the module: "image" `images`, "text" `text`, "classification"
`classification`. What they share is in `experiment`; `sweeps` reads files and does their runs.
"""

from tutvae.experiments.classification import ClassificationExperiment as ClassificationExperiment
from tutvae.experiments.experiment import Experiment as Experiment
from tutvae.experiments.images import ImageExperiment as ImageExperiment
from tutvae.experiments.sweeps import load_experiment as load_experiment
from tutvae.experiments.sweeps import run_experiment as run_experiment
from tutvae.experiments.sweeps import validate_experiment as validate_experiment
from tutvae.experiments.text import TextExperiment as TextExperiment
