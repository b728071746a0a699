"""How much memory a corpus takes that is larger than it: tokenised once, then trained on.

Writes generated reviews of several sizes to files, and for each size starts one process that
tokenises and one that trains on all of it for an epoch. The peak of a process's resident memory
must not grow with the corpus. As the memory of the data is asked for, the model is the cheapest
there is: words drawn one by one, whatever came before.

    python benchmarks/large_corpus.py --megabytes 25 250 1100 --folder /some/disk
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from tutvae.bounds import Elbo
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.batches.windows import WindowedBatches
from tutvae.data.large import Lines, MappedTexts, StreamedTexts, tokenize_once
from tutvae.data.tokenization import Tokenizer
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.training.loop import fit

DIFFERENT = 20_000  # reviews, of which the files are made


class Unigrams(nn.Module):
    """A language model that knows how frequent each word is, and no more."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocabulary_size))

    def forward(self, batch: TextBatch) -> Elbo:
        """Bound, here exactly, log p(x) of B documents."""
        costs = -self.logits.log_softmax(0)[batch.targets]  # [B, T]
        nll = costs.masked_fill(~batch.mask, 0.0).sum(1)
        return Elbo(nll, torch.zeros_like(nll))


def write_corpus(path: Path, megabytes: int) -> None:
    reviews = ReviewGrammar().sample(DIFFERENT, seed=0).texts
    random.seed(0)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1_000_000:
            file.writelines(review + "\n" for review in random.choices(reviews, k=DIFFERENT))


def tokenise(folder: Path) -> dict[str, float]:
    lines = Lines([folder / "corpus.txt"])
    sample = [text for _, text in zip(range(DIFFERENT), lines, strict=False)]
    tokenizer = Tokenizer.train(sample)
    tokenizer.save(folder / "tokenizer.json")
    mapped = tokenize_once(lines, tokenizer, folder)
    return {"documents": mapped.documents, "tokens": mapped.tokens}


def train(folder: Path, streamed: bool) -> dict[str, float]:
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    lines = Lines([folder / "corpus.txt"])
    source = StreamedTexts(lines, tokenizer) if streamed else MappedTexts(folder)
    torch.manual_seed(0)
    history = fit(
        Unigrams(len(tokenizer)),
        WindowedBatches(source, token_budget=20_000),
        epochs=1,
        device="cpu",
        run_folder=folder / ("streamed" if streamed else "mapped"),
    )
    return {"steps": history["step"][-1], "nats_per_document": history["train_reconstruction"][-1]}


STAGES = {
    "tokenise": tokenise,
    "train": lambda folder: train(folder, streamed=False),
    "train, streamed": lambda folder: train(folder, streamed=True),
}


def stage(name: str, folder: Path) -> None:
    """One process's work, and the most memory it ever held."""
    start = time.perf_counter()
    result = STAGES[name](folder)
    seconds = round(time.perf_counter() - start, 1)
    # In kilobytes on Linux; pages of mapped files count while they are mapped.
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"peak_megabytes": megabytes, "seconds": seconds, **result}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[25, 250, 1100])
    parser.add_argument("--folder", type=Path, help="a disk with room for twice the text")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["tokenise", "train"])
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        return stage(arguments.stage, arguments.folder)
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            write_corpus(Path(folder) / "corpus.txt", megabytes)
            for name in arguments.stages:
                command = [sys.executable, __file__, "--folder", folder, "--stage", name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                print(f"{megabytes:>5} MB, {name}: {done.stdout.strip()}", flush=True)
    return None


if __name__ == "__main__":
    main()
