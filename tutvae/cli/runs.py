"""The commands that use a trained model, and those that ask one about texts."""

import csv
import io
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from typer import Argument, Option

from tutvae.cli.console import Answer, finite, given_texts, note
from tutvae.data.backends import UNK
from tutvae.data.readers.files import write_beside
from tutvae.evaluation.classification import TextPredictor
from tutvae.evaluation.clustering import mixture_clusters
from tutvae.experiments.runs import evaluate_run
from tutvae.generation.text_model import as_documents
from tutvae.model_folder import TrainedModel
from tutvae.models import VAE, LanguageModel, SemiSupervisedTextVAE, TextVAE
from tutvae.saving import load_trained, save
from tutvae.training.checkpoints import Bits
from tutvae.training.loop import pick_device

A_RUN = Argument(metavar="RUN", help="The folder of a model, sentences, or hub:OWNER/NAME.")
TEXTS = Argument(metavar="[TEXT]...", help="Without any, the lines of standard input.")
Run = Annotated[str, A_RUN]
TextArguments = Annotated[list[str] | None, TEXTS]


class Part(str, Enum):
    """The part of a corpus to measure on."""

    VALID = "valid"
    TEST = "test"


def evaluate(
    run: Run,
    split: Annotated[Part, Option(help="The part of the corpus.")] = Part.TEST,
    importance_samples: Annotated[
        int | None, Option("--importance-samples", "-S", min=1, help="As in the run by default.")
    ] = None,
) -> Answer:
    """Measure the model of a run on its corpus, as the run itself did."""
    trained = load_trained(run)
    trained.model_.to(pick_device())
    report = evaluate_run(trained, split.value, importance_samples=importance_samples)
    facts = {"run": run, "split": split.value, **report.to_dict()}
    return f"{run}, {split.value}: {report}", facts


def sample(
    run: Run,
    count: Annotated[int, Option("--count", "-n", min=1, help="How many texts.")] = 10,
    temperature: Annotated[
        float, Option(min=0, callback=finite, help="Below 1 likelier words; 0 the likeliest ones.")
    ] = 1.0,
    top_k: Annotated[int | None, Option(min=1, help="Draw from the k most probable words.")] = None,
    top_p: Annotated[
        float, Option(min=0, max=1, help="Draw from the nucleus of this probability.")
    ] = 1.0,
    seed: Annotated[int, Option(min=0, help="Another seed, other texts.")] = 0,
) -> Answer:
    """Write new texts with the model of a run, a line each."""
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    texts = _of_texts(run).sample(count, **options)
    return texts, texts


def reconstruct(run: Run, texts: TextArguments = None) -> Answer:
    """Encode texts and decode their codes: a line for each text.

    A model of words wants them as its corpus writes them: PTB is in lower case, with spaces around
    punctuation. A word that it does not know is read as its unknown mark.
    """
    texts = given_texts(texts or [])
    found = _with_code(run, texts).reconstruct(texts)
    pairs = zip(texts, found, strict=True)
    return found, [{"text": text, "reconstruction": own} for text, own in pairs]


def interpolate(
    run: Run,
    left: Annotated[str, Argument(metavar="FROM", help="Where the walk starts.")],
    right: Annotated[str, Argument(metavar="TO", help="Where it ends.")],
    steps: Annotated[int, Option(min=2, help="Texts on the way, both ends included.")] = 7,
) -> Answer:
    """Walk from one text to another: decode codes on the line between theirs."""
    left, right = given_texts([left, right])
    walk = _with_code(run, [left, right]).interpolate(left, right, steps)
    return walk, walk


def export(
    run: Run,
    folder: Annotated[Path, Argument(help="A new folder.")],
    bits: Annotated[int, Option(help="Of a weight: 8, 16 or 32.")] = 16,
) -> None:
    """Write what is needed to use the model of a run, in fewer bits: a folder to hand on."""
    if bits not in get_args(Bits):
        raise ValueError(f"a weight has 8, 16 or 32 bits, not {bits}")
    trained = load_trained(run)
    parts = ("configuration", "label_names", "report")
    options: dict[str, Any] = {part: getattr(trained, part) for part in parts} | {"bits": bits}
    exported = save(trained.model_, folder, tokenizer=trained.tokenizer_, **options)
    size = sum(path.stat().st_size for path in exported.iterdir())
    typer.echo(f"wrote {exported}, {size / 1e6:.1f} MB")


def encode(
    run: Run,
    texts: TextArguments = None,
    out: Annotated[
        Path | None, Option(help="A new file, .csv or .npy; by default CSV is printed.")
    ] = None,
) -> None:
    """Give the codes of texts, posterior means of Z numbers each: a row a text."""
    trained, documents = _asked(run, texts)
    codes = trained.transform(documents)
    if out is None:
        typer.echo(_csv(documents, codes), nl=False)
        return
    if out.suffix not in (".csv", ".npy"):
        raise ValueError(f"{out} must end in .csv or .npy")
    content = io.BytesIO(_csv(documents, codes).encode() if out.suffix == ".csv" else b"")
    if out.suffix == ".npy":
        np.save(content, codes)
    write_beside(out, content.getvalue())
    note(f"wrote {out}: {codes.shape[0]} codes of {codes.shape[1]} numbers")


def classify(run: Run, texts: TextArguments = None) -> Answer:
    """Tell the most probable class of texts, a line each, with its probability."""
    trained, documents = _asked(run, texts)
    if not isinstance(trained.model_, SemiSupervisedTextVAE):
        raise ValueError(f"{run} knows no classes: train with --label-column")
    assert trained.tokenizer_ is not None
    predictor = TextPredictor(trained.model_, trained.tokenizer_, max_length=trained.max_length)
    q = predictor.predict_proba(documents)
    names = trained.label_names or list(map(str, range(q.shape[1])))
    chosen = [names[i] for i in q.argmax(1)]
    lines = [f"{name}\t{p:.2f}" for name, p in zip(chosen, q.max(1), strict=True)]
    return lines, [
        {"text": text, "label": name, "probabilities": dict(zip(names, row, strict=True))}
        for text, name, row in zip(documents, chosen, q.tolist(), strict=True)
    ]


def impute(
    run: Run,
    texts: TextArguments = None,
    blank: Annotated[str, Option(help="What marks a missing word.")] = "_",
) -> Answer:
    """Fill the blanks of texts, each with one token."""
    trained, documents = _asked(run, texts)
    filled = trained.impute(documents, blank)
    pairs = zip(documents, filled, strict=True)
    return filled, [{"text": text, "filled": own} for text, own in pairs]


def cluster(
    run: Run,
    texts: TextArguments = None,
    clusters: Annotated[int, Option("--clusters", "-k", min=1, help="How many.")] = 5,
) -> Answer:
    """Group texts by their codes, with a mixture of Gaussians: number and text, a line each."""
    trained, documents = _asked(run, texts)
    found = mixture_clusters(torch.from_numpy(trained.transform(documents)), clusters)
    pairs = sorted(zip(found.tolist(), documents, strict=True), key=lambda pair: pair[0])
    rows = [{"cluster": number, "text": text} for number, text in pairs]
    return [f"{number}\t{text}" for number, text in pairs], rows


def diagnose(run: Run, texts: TextArguments = None) -> Answer:
    """Say how well a model is on texts that it has not seen: what is wrong, why, what to do."""
    trained, documents = _asked(run, texts)
    diagnosis = trained.diagnose(documents)
    return str(diagnosis), diagnosis.to_dict()


def _of_texts(run: str) -> TrainedModel:
    """The model of a run, which must be one that writes, on the fastest device at hand."""
    trained = load_trained(run)
    writers = TextVAE | SemiSupervisedTextVAE | LanguageModel
    if not isinstance(trained.model_, writers) or trained.tokenizer_ is None:
        is_vae = isinstance(trained.model_, VAE)
        kind = "images" if is_vae else "another kind, or without its tokenizer"
        raise ValueError(f"{run} holds a model of {kind}: this command is for texts")
    trained.model_.to(pick_device())
    return trained


def _with_code(run: str, texts: Sequence[str]) -> TrainedModel:
    """The model of a run, which must have a code; tell which words it cannot read."""
    trained = _of_texts(run)
    if isinstance(trained.model_, LanguageModel):
        remedy = "take the run of a VAE"
        raise ValueError(f"{run} holds a language model, which has no code to decode: {remedy}")
    if not texts:
        raise ValueError("there is no text: standard input is empty")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise ValueError(f"text {number} of {len(texts)} is empty")
    words = dict.fromkeys(word for text in texts for word in text.split() if word != UNK)
    tokenizer: Any = trained.tokenizer_
    if unknown := [word for word in words if tokenizer.unk_id in tokenizer.encode([word])[0]]:
        note(f"unknown to the model, and read as {UNK}: {' '.join(unknown)}")
    return trained


def _asked(run: str, texts: list[str] | None) -> tuple[TrainedModel, list[str]]:
    """The model of a run on the fastest device, and the texts it is asked about."""
    documents = as_documents(given_texts(texts or []))
    return _of_texts(run), documents


def _csv(documents: list[str], codes: np.ndarray) -> str:
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["text", *(f"z{i}" for i in range(codes.shape[1]))])
    rows = zip(documents, codes.tolist(), strict=True)
    table.writerows([text, *(f"{x:.6g}" for x in code)] for text, code in rows)
    return content.getvalue()


OF_RUNS: list[Callable[..., Answer | None]] = [evaluate, sample, reconstruct, interpolate, export]
OF_RUNS += [encode, classify, impute, cluster, diagnose]
