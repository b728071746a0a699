"""The commands that use a trained model: `evaluate`, `sample`, `reconstruct` and so on."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer import Argument, Option

from tutvae.cli.console import Answer, finite, given_texts, note
from tutvae.data.backends import UNK
from tutvae.experiments.runs import evaluate_run
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
    texts = of_texts(run).sample(count, **options)
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


def of_texts(run: str) -> TrainedModel:
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
    trained = of_texts(run)
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
    unknown = [word for word in words if tokenizer.unk_id in tokenizer.encode([word])[0]]
    if unknown:
        note(f"unknown to the model, and read as {UNK}: {' '.join(unknown)}")
    return trained
