"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds -> models -> evaluation -> training -> generation -> plots.
"""

from tutvae import generation, plots
from tutvae.bounds import Elbo
from tutvae.data.corpora import digits, mnist
from tutvae.evaluation import Report, encode, evaluate
from tutvae.models import VAE
from tutvae.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Elbo",
    "History",
    "Report",
    "digits",
    "encode",
    "evaluate",
    "fit",
    "generation",
    "mnist",
    "plots",
]
