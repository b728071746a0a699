"""How fast the models of an experiment train here, before anything is trained: tokens a second.

Each variant is trained on a few batches of random words, documents of one length, with its own
vocabulary size, batch size and precision. No corpus is needed. What the whole experiment would
take follows from its epochs and from the number of its documents.

    OMP_NUM_THREADS=1 python benchmarks/training_rate.py experiments/yahoo_full.toml
"""

from __future__ import annotations

import argparse

import torch

from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments import TextExperiment, load_experiment
from tutvae.experiments.published import published_corpora
from tutvae.training.loop import fit

WARM_UP = 2  # batches, in which memory is set up


def random_batches(experiment: TextExperiment, tokens: int, count: int) -> list[TextBatch]:
    """Batches of documents with so many predicted tokens each."""
    B, V = experiment.training.batch_size, experiment.corpus.vocabulary_size
    lengths = torch.full((B,), tokens + 1)
    return [TextBatch(torch.randint(4, V, (B, tokens + 1)), lengths) for _ in range(count)]


def tokens_per_second(experiment: TextExperiment, tokens: int, count: int) -> float:
    V = experiment.corpus.vocabulary_size
    tokenizer = Tokenizer.train([" ".join(map(str, range(V - 4)))], max_vocabulary=V)
    model = experiment.build(tokenizer)
    for batches in (random_batches(experiment, tokens, n) for n in (WARM_UP, count)):
        options = experiment.training.build(model, batches, epochs=1)
        history = fit(model, batches, **options, progress=False)
    return count * experiment.training.batch_size * tokens / history.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="a TOML file of texts that states a vocabulary_size")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    parser.add_argument("--variants", nargs="+", help="of a sweep; all by default")
    parser.add_argument("--documents", type=int, default=100_000, help="of the training split")
    parser.add_argument("--batches", type=int, default=5, help="to measure on")
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.experiment, arguments.set)
    if not isinstance(experiment, TextExperiment) or experiment.corpus.vocabulary_size is None:
        parser.error("the experiment must be one of texts, and state corpus.vocabulary_size")
    L = published_corpora()[experiment.corpus.name]["tokens_per_document"]
    print(f"{'variant':<20}{'tokens/s':>10}{'hours':>10}   torch {torch.__version__}")
    for run in experiment.runs():
        if arguments.variants is None or run.variant in arguments.variants:
            rate = tokens_per_second(run.experiment, round(L), arguments.batches)
            seen = run.experiment.training.epochs * arguments.documents * L
            print(f"{run.variant:<20}{rate:>10,.0f}{seen / rate / 3600:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
