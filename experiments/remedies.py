"""The remedies against posterior collapse on one bench: each as its paper says, trained to the end.

    python experiments/remedies.py [--corpus reviews] [--remedy none rate ...] [--seed 0 1 ...]

One VAE (E = H = 128, tied words, Z = 32, dropout 0.2) on chapter 5's reviews, on 20,000 of
Tatoeba's sentences, or on PTB. In each run another remedy; where a remedy says how many nats the
code shall hold, it is 4. Beside them stand language models with the same decoders, and the same
VAEs with a blank code: the decoder hears noise. `remedies_bench.py` says what is measured.

Every finished run is written to results/remedies/CORPUS.json, and is not done again: several
commands may run side by side, each on one thread, or on a GPU where there is one. Each ends with
the table of all that is in the record; `--seed` with nothing behind it prints the table alone.
Of Tatoeba, `none` and the best four have the seeds 3 and 4, too; of PTB there are only `none`, the
best two, and their baselines.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import remedies_bench as bench
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.distributions import Normal

import tutvae
from tutvae import LSTMDecoder, LSTMEncoder, TextVAE, schedules
from tutvae.data.readers.files import write_beside
from tutvae.experiments.provenance import provenance
from tutvae.experiments.records import significant
from tutvae.models import LanguageModel, tie_weights
from tutvae.schedules import Schedule
from tutvae.training.aggressive import fit_aggressively
from tutvae.training.checkpoints import load_weights
from tutvae.training.step import adam

RECORDS = Path(__file__).parents[1] / "results" / "remedies"
E = H = 128
Z, NATS = 32, 4.0
# At 5e-3, as in chapter 5, an aggressive phase on the reviews left the code empty.
BATCH, LEARNING_RATE, MOST_EPOCHS, PATIENCE, CYCLES = 64, 2e-3, 100, 5, 4
FIT: dict[str, Any] = {"max_grad_norm": 5.0, "precision": "bf16"}
AGGRESSIVE = {"window": 5, "max_encoder_steps": 20, "round_steps": 100, "max_rounds": 5}
WATCHED_SEED, SINGLY, TOGETHER = 0, 100, 10


@dataclass
class Corpus:
    """Encoded documents, and the epochs in which a KL weight rises to 1."""

    name: str
    tokenizer: tutvae.Tokenizer
    texts: tutvae.Corpus
    ramp_epochs: int
    seeds: tuple[int, ...]
    grammar: tutvae.ReviewGrammar | None = None

    def __post_init__(self) -> None:
        parts = self.texts.train, self.texts.valid, self.texts.test
        encoded = [tutvae.EncodedTexts.from_texts(part, self.tokenizer) for part in parts]
        self.train, self.valid, self.test = encoded


def reviews() -> Corpus:
    """The sentences of chapter 5, with more of them to choose and to test by."""
    grammar = tutvae.ReviewGrammar(nouns=6, verbs=2, adjectives=4, fillers=4)
    texts = grammar.corpus(train=7_000, valid=1_000, test=4_000, seed=0)
    tokenizer = tutvae.Tokenizer.train(texts.train.texts)
    return Corpus("reviews", tokenizer, texts, 10, (0, 1, 2, 3, 4), grammar)


def tatoeba() -> Corpus:
    """Everyday sentences, always the same 20,000, in pieces of words."""
    texts = _drawn(tutvae.tatoeba(), train=20_000, valid=2_000, test=2_048)
    options: Any = {"model": "bpe", "max_vocabulary": 4_000, "min_frequency": 10}
    tokenizer = tutvae.Tokenizer.train(texts.train.texts, uncased=True, **options)
    return Corpus("tatoeba", tokenizer, texts, 5, (0, 1, 2))


def ptb() -> Corpus:
    """All of the Penn Treebank's training sentences."""
    texts = tutvae.ptb()
    tokenizer = tutvae.Tokenizer.train(texts.train.texts)
    drawn = _drawn(texts, train=len(texts.train), valid=2_000, test=2_048)
    return Corpus("ptb", tokenizer, drawn, 3, (0, 1, 2))


def _drawn(texts: tutvae.Corpus, **sizes: int) -> tutvae.Corpus:
    """Some documents of each split, in a drawn order."""
    parts = []
    for name, size in sizes.items():
        part = getattr(texts, name)
        parts.append(part.part(random.Random(0).sample(range(len(part)), size)))
    return tutvae.Corpus(texts.name, *parts)


CORPORA: dict[str, Callable[[], Corpus]] = {"reviews": reviews, "tatoeba": tatoeba, "ptb": ptb}


class SkipDecoder(LSTMDecoder):
    """An LSTM whose logits are, at every step, also a linear function of the code."""

    def __init__(self, V: int, E: int, H: int, Z: int, **options: Any) -> None:
        super().__init__(V, E, H, Z, **options)
        self.skip = nn.Linear(Z, V, bias=False)

    def _heard(self, h: Tensor, joined: Tensor) -> Tensor:
        return torch.cat([self.dropout(h), joined], dim=-1)

    def project(self, hidden: Tensor) -> Tensor:
        """Turn states and codes `[..., H + Z]` into logits `[..., V]`."""
        h, z = hidden.split([self.lstm.hidden_size, self.latent_size], dim=-1)
        return self.output(h) + self.skip(z)


class BlankVAE(TextVAE):
    """A VAE whose posterior is the prior: its codes are noise, and say nothing."""

    def posterior(self, batch: tutvae.TextBatch) -> Normal:
        """The prior, once a document, `[B, Z]`."""
        zeros = self.prior().loc.expand(len(batch), -1)
        return Normal(zeros, torch.ones_like(zeros), validate_args=False)


class WatchedVAE(TextVAE):
    """A VAE that notes KL weight, KL and reconstruction of every update in training."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__(encoder, decoder)
        self.kl_weight, self.weights, self.terms = 1.0, [], []

    def forward(self, batch: tutvae.TextBatch) -> tutvae.Elbo:
        """Bound log p(x), as ever."""
        elbo = super().forward(batch)
        if self.training:
            self.weights.append(self.kl_weight)
            self.terms.append(torch.stack([elbo.kl.mean(), elbo.reconstruction.mean()]).detach())
        return elbo


def normalise_means(encoder: LSTMEncoder, gamma: float) -> None:
    """Hold the spread of the posteriors' means in a batch at gamma, in every dimension."""
    # With torch's own eps, means that shrink would escape the gamma; with its momentum the
    # statistics in use would be those of ten batches, and validation too noisy to train by.
    norm = nn.BatchNorm1d(encoder.latent_size, eps=1e-8, momentum=0.01)
    nn.init.constant_(norm.weight, gamma)
    norm.weight.requires_grad_(False)
    encoder.mean = nn.Sequential(encoder.mean, norm)


class Course:
    """A model in training, and what was noted after every epoch."""

    def __init__(self, model: Any, corpus: Corpus, new_decoder: Callable[[], Any], seed: int):
        self.model, self.new_decoder, self.ramp_epochs = model, new_decoder, corpus.ramp_epochs
        self.batches = tutvae.Batches(corpus.train, batch_size=BATCH, seed=seed)
        self.valid = tutvae.Batches(corpus.valid, batch_size=256, shuffle=False)
        self.optimizer = adam(model.parameters(), LEARNING_RATE)
        self.epochs: list[dict[str, Any]] = []
        self.rounds: list[dict[str, Any]] = []

    def noted(self, schedule: Schedule) -> Schedule:
        """The same schedule, which also tells a model that is watched."""

        def weight(step: int) -> float:
            self.model.kl_weight = schedule(step)
            return self.model.kl_weight

        return weight

    def fit(self, phase: str, epochs: int, schedule: Schedule, **options: Any) -> None:
        """Train for some epochs, or until patience ends."""
        options |= {"optimizer": self.optimizer, "kl_weight": self.noted(schedule)}
        options |= {"epochs": epochs, "valid": self.valid, "progress": False}
        history = tutvae.fit(self.model, self.batches, **FIT, **options)
        self.epochs += [{"phase": phase, **record} for record in history.records]


def aggressive(course: Course, ramp: Schedule) -> int:
    """Let the encoder catch up before each update of the decoder; return the decoder's steps."""
    rounds = fit_aggressively(
        course.model,
        course.batches,
        valid=course.valid,
        encoder_optimizer=adam(course.model.encoder.parameters(), LEARNING_RATE),
        decoder_optimizer=adam(course.model.decoder.parameters(), LEARNING_RATE),
        kl_weight=course.noted(ramp),
        **FIT,
        **AGGRESSIVE,
    )
    course.rounds = [vars(one) for one in rounds]
    return sum(one.decoder_steps for one in rounds)


def autoencoder(course: Course, ramp: Schedule) -> int:
    """Train an autoencoder, keep its encoder, and begin anew with another decoder."""
    course.fit("autoencoder", course.ramp_epochs, schedules.constant(0.0))
    course.model.decoder = course.new_decoder()
    course.optimizer = adam(course.model.parameters(), LEARNING_RATE)
    return 0


@dataclass(frozen=True)
class Remedy:
    """What is done in a run, apart from what is done in all of them.

    `ramp` is how the KL weight comes to its `end`; `first` a phase before it, which returns
    the steps of the ramp that it took; `loss` are options of `fit`. The code is "own", "blank" or
    "none", which makes a language model.
    """

    code: str = "own"
    decoder: str = "plain"
    pooling: Any = "last"
    gamma: float | None = None
    first: Callable[[Course, Schedule], int] | None = None
    ramp: Callable[[int], Schedule] | None = None
    end: float = 1.0
    loss: dict[str, Any] = field(default_factory=dict)


def cycles(steps: int) -> Schedule:
    """The cycles of a ramp: in the first half of each the weight rises."""
    return schedules.cyclical(math.ceil(steps / CYCLES))


def from_a_tenth(steps: int) -> Schedule:
    """A linear ramp as in the programs of He et al. and of Dieng et al."""
    return schedules.linear(steps, start=0.1)


DECODERS: dict[str, tuple[type[LSTMDecoder], dict[str, float]]] = {
    "plain": (LSTMDecoder, {}),
    "word_dropout": (LSTMDecoder, {"word_dropout": 0.38}),
    "inputless": (LSTMDecoder, {"word_dropout": 1.0}),
    "skip": (SkipDecoder, {}),
}
BY_DIMENSION = {"free_bits": NATS / Z}
REMEDIES = {
    "none": Remedy(),
    "linear": Remedy(ramp=schedules.linear),  # Bowman et al. (2016)
    "cyclical": Remedy(ramp=cycles),  # Fu et al. (2019)
    "beta_0_4": Remedy(end=0.4),  # Higgins et al. (2017)
    "word_dropout": Remedy(decoder="word_dropout", ramp=schedules.linear),  # Bowman et al. (2016)
    "inputless": Remedy(decoder="inputless", ramp=schedules.linear),  # Bowman et al. (2016)
    "free_bits": Remedy(loss=BY_DIMENSION),  # Kingma et al. (2016)
    "free_bits_in_total": Remedy(loss={"free_bits": NATS, "free_bits_per": "total"}),
    "pooling": Remedy(pooling="max", ramp=schedules.linear),  # Long et al. (2019)
    "aggressive": Remedy(first=aggressive, ramp=from_a_tenth),  # He et al. (2019)
    "batch_norm": Remedy(gamma=math.sqrt(2 * NATS / Z)),  # Zhu et al. (2020)
    "autoencoder_first": Remedy(  # Li et al. (2019)
        first=autoencoder, ramp=schedules.linear, loss=BY_DIMENSION
    ),
    "rate": Remedy(loss={"rate": NATS}),  # Alemi et al. (2018)
    "skip": Remedy(decoder="skip", ramp=from_a_tenth),  # Dieng et al. (2019)
}
BASELINES = {
    f"{name}_{decoder}": Remedy(code=code, decoder=decoder)
    for name, code in (("language_model", "none"), ("blank", "blank"))
    for decoder in DECODERS
    if (code, decoder) != ("none", "skip")  # without a code there is nothing to skip
}
ALL = REMEDIES | BASELINES


def build(remedy: Remedy, V: int, watched: bool = False) -> tuple[Any, Callable[[], Any]]:
    """The model of a remedy, and what makes another decoder like its own."""
    made, options = DECODERS[remedy.decoder]

    def decoder() -> LSTMDecoder:
        new = made(V, E, H, 0 if remedy.code == "none" else Z, dropout=0.2, **options)
        tie_weights(new)
        return new

    if remedy.code == "none":
        return LanguageModel(decoder()), decoder
    encoder = LSTMEncoder(V, E, H, Z, pooling=remedy.pooling)
    if remedy.gamma is not None:
        normalise_means(encoder, remedy.gamma)
    kind = BlankVAE if remedy.code == "blank" else WatchedVAE if watched else TextVAE
    return kind(encoder, decoder()), decoder


def trained(remedy: Remedy, corpus: Corpus, seed: int) -> Course:
    """Train a model: first phase, ramp, and then until validation stops improving.

    Patience begins where the KL weight has come to its end. The weights are those of the best
    epoch since then.
    """
    torch.manual_seed(seed)
    model, new_decoder = build(remedy, len(corpus.tokenizer), watched=seed == WATCHED_SEED)
    course = Course(model, corpus, new_decoder, seed)
    an_epoch = len(course.batches)
    steps = corpus.ramp_epochs * an_epoch
    end = schedules.constant(remedy.end)
    ramp = end if remedy.ramp is None else remedy.ramp(steps)
    done = remedy.first(course, ramp) if remedy.first else 0
    if remedy.ramp and done < steps:
        left = math.ceil((steps - done) / an_epoch)
        course.fit("ramp", left, lambda step: ramp(done + step), **remedy.loss)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"scheduler": "plateau", "patience": PATIENCE}
        course.fit("end", MOST_EPOCHS, end, run_folder=folder, **options, **remedy.loss)
        load_weights(model, folder)
    return course


def curve(model: Any) -> dict[str, list[float]]:
    """What a watched model noted: the first updates singly, then the means of ten at a time."""
    rows = torch.cat([torch.tensor(model.weights)[:, None], torch.stack(model.terms).cpu()], 1)
    parts = [*rows[:SINGLY].split(1), *rows[SINGLY:].split(TOGETHER)]
    parts = [part for part in parts if len(part)]
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    columns = torch.stack([part.mean(0) for part in parts]).T.tolist()
    named = dict(zip(("kl_weight", "kl", "reconstruction"), columns, strict=True))
    return {"update": ends.tolist()} | significant(named, 4)


def run(name: str, seed: int, corpus: Corpus) -> dict[str, Any]:
    """Train and measure one model: a row of the record."""
    row: dict[str, Any] = {"remedy": name, "seed": seed, "provenance": provenance()}
    wall, cpu = time.perf_counter(), time.process_time()
    course = trained(ALL[name], corpus, seed)
    row["train_seconds"] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    model, last = course.model, [epoch for epoch in course.epochs if epoch["phase"] == "end"]
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row["ended_by_patience"] = len(last) < MOST_EPOCHS
    row |= bench.measured(model, corpus)
    row["seconds"] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    names = [key for key in last[0] if not key.startswith("train_")]
    row["epochs"] = {key: [epoch[key] for epoch in course.epochs] for key in names}
    row |= {"rounds": course.rounds} if course.rounds else {}
    row |= {"curve": curve(model)} if isinstance(model, WatchedVAE) else {}
    return significant(row, 5)


def read(corpus: str) -> list[dict[str, Any]]:
    """The finished runs of a corpus."""
    path = RECORDS / f"{corpus}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def written(corpus: str, row: dict[str, Any]) -> None:
    """Add a run to the record, a line a run, whoever else adds to it."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    with FileLock(Path(tempfile.gettempdir()) / f"tutvae-remedies-{corpus}.lock"):
        lines = ",\n".join(json.dumps(each, allow_nan=False) for each in [*read(corpus), row])
        write_beside(RECORDS / f"{corpus}.json", f"[\n{lines}\n]\n".encode())


def main() -> None:
    """Do what is not done yet, and print the tables."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--corpus", nargs="+", choices=CORPORA, default=list(CORPORA)[:1])
    arguments.add_argument("--remedy", nargs="+", choices=ALL, default=list(ALL))
    arguments.add_argument("--seed", nargs="*", type=int)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for name in given.corpus:
        corpus = CORPORA[name]()
        seeds = corpus.seeds if given.seed is None else given.seed
        for seed, remedy in [(seed, remedy) for seed in seeds for remedy in given.remedy]:
            if any((x["remedy"], x["seed"]) == (remedy, seed) for x in read(name)):
                continue
            written(name, run(remedy, seed, corpus))
            print(f"{name} {remedy} {seed}", flush=True)
        print(bench.table(read(name), {key: x.decoder for key, x in REMEDIES.items()}))


if __name__ == "__main__":
    main()
