"""What the studies of context and of length share: a recipe, measures, a record that grows."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import tutvae
from tutvae import schedules
from tutvae.data.readers.files import write_beside
from tutvae.experiments.provenance import provenance
from tutvae.experiments.records import significant
from tutvae.models import Decoder, LanguageModel, LSTMEncoder, TextVAE
from tutvae.training.checkpoints import load_weights
from tutvae.training.run_folder import RunFolder
from tutvae.training.step import adam

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Recipe:
    """Sizes and training of every model of a study; `ramp` is a part of the run."""

    width: int = 64  # of word vectors, states and channels
    latent_size: int = 8
    epochs: int = 16
    learning_rate: float = 5e-3
    ramp: float = 0.5
    rate: float | None = None  # nats of KL to hold, in place of the ramp
    best: bool = False  # keep the best epoch, by validation, in place of the last
    samples: int = 100  # for the importance-weighted NLL


# What makes a decoder of the sizes V, E, H and Z.
MakeDecoder = Callable[..., Decoder]


class Split:
    """A corpus with its tokenizer, the parts encoded; longer documents are cut."""

    def __init__(self, corpus: tutvae.Corpus, longest: int | None = None, **tokenizer: Any) -> None:
        self.corpus = corpus
        self.tokenizer = tutvae.Tokenizer.train(corpus.train.texts, **tokenizer)
        self.train, self.valid, self.test = (
            tutvae.EncodedTexts(
                [row[:longest] for row in self.tokenizer.encode(part.texts)],
                pad_id=self.tokenizer.pad_id,
            )
            for part in (corpus.train, corpus.valid, corpus.test)
        )


def build(
    make: MakeDecoder, kind: str, V: int, recipe: Recipe, vae: type[TextVAE] = TextVAE
) -> Any:
    """A language model, "lm", or a VAE whose encoder pools, "vae", with the same decoder."""
    W, Z = recipe.width, recipe.latent_size
    if kind == "lm":
        return LanguageModel(make(V, W, W, 0))
    return vae(LSTMEncoder(V, W, W, Z, pooling="max"), make(V, W, W, Z))


def fit(model: Any, split: Split, recipe: Recipe, seed: int) -> tutvae.History:
    """Train a model; the weight of the KL rises evenly to 1 and stays, unless a rate is held."""
    batches = tutvae.Batches(split.train, batch_size=32, seed=seed)
    steps = int(recipe.ramp * recipe.epochs * len(batches))
    kl_weight = schedules.linear(steps) if steps else 1.0
    with tempfile.TemporaryDirectory() as folder:
        chosen: dict[str, Any] = {"kl_weight": kl_weight}
        if recipe.rate is not None:
            chosen = {"rate": recipe.rate}
        if recipe.best:
            chosen |= {"valid": in_order(split.valid), "run_folder": folder}
        history = tutvae.fit(
            model,
            batches,
            epochs=recipe.epochs,
            optimizer=adam(model.parameters(), recipe.learning_rate),
            scheduler="cosine",
            max_grad_norm=5.0,
            progress=False,
            **chosen,
        )
        if recipe.best:
            load_weights(model, RunFolder(folder).best)
    model.eval()
    return history


def trained(
    make: MakeDecoder, kind: str, split: Split, recipe: Recipe, seed: int
) -> tuple[Any, tutvae.History]:
    """Build a model and train it."""
    torch.manual_seed(seed)
    model = build(make, kind, len(split.tokenizer), recipe)
    return model, fit(model, split, recipe, seed)


def in_order(texts: tutvae.EncodedTexts) -> tutvae.Batches:
    """Batches to be read once."""
    return tutvae.Batches(texts, token_budget=2_048, shuffle=False)


def measured(model: Any, split: Split, recipe: Recipe) -> dict[str, Any]:
    """Bound, KL, NLL and information on the test documents, nats a document."""
    options: dict[str, Any] = {"importance_samples": recipe.samples, "chunk_size": 10}
    report = tutvae.evaluate(model, in_order(split.test), **options).to_dict()
    field = model.decoder.receptive_field
    weights = {"weights": sum(x.numel() for x in model.decoder.parameters())}
    return report | weights | ({} if field is None else {"receptive_field": field})


def curves(history: tutvae.History) -> dict[str, list[float]]:
    """What training did, epoch by epoch."""
    return {name: history[name] for name in ("kl_weight", "train_reconstruction", "train_kl")}


def probed(model: TextVAE, split: Split) -> dict[str, float]:
    """Nats that the codes of test reviews tell of category and stars, by a linear probe."""
    parts = split.train, split.test
    train, test = (tutvae.sample_codes(tutvae.encode(model, in_order(x))) for x in parts)
    known: Any = split.corpus
    return {
        name: tutvae.probe(train, known.train.factors[name], test, known.test.factors[name]).nats
        for name in ("category", "stars")
    }


def parser_of(description: str, records: Path, **choices: Any) -> argparse.ArgumentParser:
    """A command line on which values of the keys of a plan can be chosen, and a folder."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, values in choices.items():
        whole = lambda x: int(x) if x.isdigit() else x  # noqa: E731
        parser.add_argument(f"--{name}", nargs="*", type=whole, choices=list(values))
    parser.add_argument("--records", type=Path, default=records)
    return parser


def selected(
    plans: Iterable[dict[str, Any]], given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The plans that have the values asked for, or any where nothing was."""
    for plan in plans:
        asked = {name: values for name, values in vars(given).items() if name in plan and values}
        if all(plan[name] in values for name, values in asked.items()):
            yield plan


class Record:
    """The finished runs of a study in a file, to which several processes may add."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What is finished."""
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []

    def holds(self, plan: dict[str, Any]) -> bool:
        """Whether the run that a plan describes is finished."""
        return any(plan.items() <= run.items() for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        """Write a run down; the others stay."""
        lock = Path(tempfile.gettempdir()) / f"tutvae-{self.path.stem}.lock"
        with FileLock(lock):
            rows = [json.dumps(x) for x in (*self.runs, run)]
            text = "[\n" + ",\n".join(rows) + "\n]\n"
            write_beside(self.path, text.encode())

    def complete(
        self, plans: Iterable[dict[str, Any]], do: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Do the runs that are not finished, and say so of each."""
        for plan in plans:
            if self.holds(plan):
                continue
            about, begun = provenance(), time.process_time()
            found = significant(do(plan), 5)
            seconds = round(time.process_time() - begun, 1)
            self.add(plan | found | {"cpu_seconds": seconds, "provenance": about})
            told = {name: found[name] for name in ("bound", "kl") if name in found}
            print(*plan.values(), told, f"{seconds:.0f} s", flush=True)
