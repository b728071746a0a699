"""What `SentenceVAE().fit(texts)`, untouched, makes of five real corpora, and of little text.

    python experiments/defaults.py [CORPUS ...] [--jobs N]

Each corpus gives its first 4,000 documents, cut to 40 words, and 500 test documents. Three
seeds of the estimator stand beside one language model: the same decoder without a code, trained in
the same way. Every finished fit is written to results/own_data/defaults.json, with its commit, and
is not done again. The corpora are read from $TUTVAE_DATA.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

import tutvae
from tutvae.experiments.provenance import provenance

DOCUMENTS, TEST, WORDS, SEEDS = 4_000, 500, 40, (0, 1, 2)
# For the NLL, of which any number gives an upper bound: the more words, the longer each takes.
SAMPLES = {"ptb": 50, "ag_news": 20, "yelp": 20, "yahoo": 20, "tatoeba": 50}
RECORD = Path(__file__).parents[1] / "results" / "own_data" / "defaults.json"


def tatoeba() -> tutvae.Corpus:
    """Everyday sentences, in a drawn order."""
    corpus = tutvae.tatoeba()
    order = np.random.default_rng(0).permutation(len(corpus.train))
    return tutvae.Corpus("tatoeba", corpus.train.part(order[:DOCUMENTS]), corpus.valid, corpus.test)


CORPORA = {
    "ptb": tutvae.ptb,
    "ag_news": tutvae.ag_news,
    "yelp": tutvae.yelp,
    "yahoo": tutvae.yahoo,
    "tatoeba": tatoeba,
}


def cut(texts: tutvae.Texts, count: int) -> list[str]:
    """The first documents of a split, each cut to its first words."""
    return [" ".join(text.split()[:WORDS]) for text in texts.texts[:count]]


def measured(train: list[str], test: list[str], samples: int, **parameters: int) -> dict[str, Any]:
    """What an estimator achieves on test documents, nats a document."""
    begun = provenance()
    model = tutvae.SentenceVAE(progress=None, **parameters).fit(train)
    found = model.diagnose(test, importance_samples=samples)
    return {
        "bound": found.report.bound,
        "kl": found.report.kl,
        "importance_samples": samples,
        "importance_weighted_nll": found.report.importance_weighted_nll,
        "mutual_information": found.report.mutual_information or 0.0,
        "own_code_gain": found.own_code_gain,
        "epochs": len(model.history_),
        "seconds": model.history_.seconds,
        "provenance": begun,
    }


def fitted(name: str, label: str, parameters: dict[str, int]) -> tuple[str, str, dict[str, Any]]:
    """One row of the table, and where it stands."""
    corpus = CORPORA[name]()
    texts = cut(corpus.train, DOCUMENTS), cut(corpus.test, TEST)
    return name, label, measured(*texts, SAMPLES[name], **parameters)


def main() -> None:
    """Do what is not done yet, of some corpora or of all, and print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("corpora", nargs="*", default=list(CORPORA))
    arguments.add_argument("--jobs", type=int, default=1)
    given = arguments.parse_args()
    done = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    wanted = {"language model": {"latent_size": 0}}
    wanted |= {f"seed {seed}": {"random_state": seed} for seed in SEEDS}
    places = [(n, x) for n in given.corpora for x in wanted if x not in done.get(n, {})]
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    parallel = Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for name, label, row in parallel(delayed(fitted)(n, x, wanted[x]) for n, x in places):
        done.setdefault(name, {})[label] = row
        RECORD.write_text(json.dumps(done, indent=2) + "\n")
        print(name, label, f"{row['seconds']:.0f} s", flush=True)
    for name in given.corpora:
        for label in wanted:
            base = done[name]["language model"]["importance_weighted_nll"]
            print(line(name, label, done[name][label], base))


def line(name: str, label: str, row: dict[str, Any], base: float) -> str:
    """A row of the table; the NLL also in per cent above the language model's."""
    nll = row["importance_weighted_nll"]
    return (
        f"{name:<8} {label:<15} NLL {nll:7.2f} ({nll / base - 1:+.1%})  KL {row['kl']:5.2f}  "
        f"MI {row['mutual_information']:5.2f}  own code {row['own_code_gain']:6.2f}  "
        f"{row['seconds']:4.0f} s"
    )


if __name__ == "__main__":
    main()
