"""The commands that ask a trained model about texts: their codes, classes, gaps and clusters."""

import csv
import io
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from tutvae.cli.console import Answer, given_texts, note
from tutvae.cli.runs import Run, TextArguments, of_texts
from tutvae.data.readers.files import write_beside
from tutvae.evaluation.classification import TextPredictor
from tutvae.evaluation.clustering import mixture_clusters
from tutvae.generation.text_model import as_documents
from tutvae.model_folder import TrainedModel
from tutvae.models import SemiSupervisedTextVAE


def encode(
    run: Run,
    texts: TextArguments = None,
    out: Annotated[
        Path | None, typer.Option(help="A new file, .csv or .npy; by default CSV is printed.")
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
    blank: Annotated[str, typer.Option(help="What marks a missing word.")] = "_",
) -> Answer:
    """Fill the blanks of texts, each with one token."""
    trained, documents = _asked(run, texts)
    filled = trained.impute(documents, blank)
    pairs = zip(documents, filled, strict=True)
    return filled, [{"text": text, "filled": own} for text, own in pairs]


def cluster(
    run: Run,
    texts: TextArguments = None,
    clusters: Annotated[int, typer.Option("--clusters", "-k", min=1, help="How many.")] = 5,
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


def _asked(run: str, texts: list[str] | None) -> tuple[TrainedModel, list[str]]:
    """The model of a run on the fastest device, and the texts it is asked about."""
    documents = as_documents(given_texts(texts or []))
    return of_texts(run), documents


def _csv(documents: list[str], codes: np.ndarray) -> str:
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["text", *(f"z{i}" for i in range(codes.shape[1]))])
    rows = zip(documents, codes.tolist(), strict=True)
    table.writerows([text, *(f"{x:.6g}" for x in code)] for text, code in rows)
    return content.getvalue()
