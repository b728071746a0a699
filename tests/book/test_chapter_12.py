"""The decoder in two levels of chapter 12 computes what the study's does."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nbformat import NotebookNode
from torch import Tensor, nn

from tutvae.models import Decoder, LSTMDecoder

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
V, E, H, Z, S = 9, 4, 6, 3, 5
BOS, EOS, STOP = 1, 2, 3
NAMES: dict[str, Any] = {"torch": torch, "nn": nn, "Decoder": Decoder, "LSTMDecoder": LSTMDecoder}

# A change of any term, and how it would read.
MUTANTS = {
    "the stop ends its own sentence": ("stops.cumsum(1)", "(stops.cumsum(1) - stops.long())"),
    "the place in the document": ("place = time - begun", "place = time - 0 * begun"),
    "the stop is read": ("inputs.masked_fill(stops, bos_id)", "inputs"),
    "no code": ("self.code_to_drive(z)", "0 * self.code_to_drive(z)"),
    "no drive": ("self.drive + share", "0 * self.drive + share"),
    "a bias": ("nn.Linear(Z, S, bias=False)", "nn.Linear(Z, S)"),
    "a fixed drive": ("nn.Parameter(torch.randn(S))", "torch.zeros(S)"),
    "one state for all": ("h.flatten(0, 1)", "h[:, :1].expand_as(h).flatten(0, 1)"),
    "a wider sentence": ("LSTMDecoder(V, E, H, S)", "LSTMDecoder(V, E, H + 1, S)"),
    "no step of the conductor": ("torch.where(stop[:, None], new, old)", "old"),
    "a step at every word": ("torch.where(stop[:, None], new, old)", "new"),
    "the stop is read, word by word": ("token.masked_fill(stop, self.bos_id)", "token"),
    "a conductor without memory": ("(h[None], c[None])", "(0 * h[None], c[None])"),
    "another first state": ("0 * drive, 0 * drive)", "0 * drive + 1, 0 * drive)"),
    "the state of before": ("*self.sentence.start(h[0])", "*self.sentence.start(0 * h[0])"),
    "other logits": ("self.sentence.project(hidden)", "-self.sentence.project(hidden)"),
}


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The module that defines the study's decoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("decoders")


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The cells of the chapter that define the decoder, in their order."""
    starts = "def by_sentence(", "class Levels(", "class TwoLevelDecoder("
    found = [cell.source for cell in chapters[12].cells if cell.source.startswith(starts)]
    assert len(found) == len(starts)
    return "\n\n\n".join(found)


def documents() -> Tensor:
    """Texts of several sentences, one of them without a word, and one that ends early."""
    torch.manual_seed(1)
    tokens = torch.randint(4, V, (4, 12))
    for row, stops in enumerate(([3, 7, 11], [2, 3, 9], [5], [1, 4, 6, 10])):
        tokens[row, stops] = STOP
    tokens[:, 0] = BOS
    tokens[2, 6:] = EOS
    return tokens


def results(decoder: Any, z: Tensor | None) -> list[Tensor]:
    """Logits of the whole and word by word, and the gradients of both."""
    decoder.zero_grad()
    inputs = documents()
    logits = decoder.project(decoder(inputs, z))
    state, steps = decoder.start(z, len(inputs)), []
    for token in inputs.T:
        step, state = decoder.step(token, state)
        steps.append(step)
    written = torch.stack(steps, 1)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (weights * (logits + 2 * written)).sum().backward()
    gradients = [decoder.get_parameter(name).grad for name in sorted(shapes(decoder))]
    return [logits, written, *gradients]


def shapes(decoder: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in decoder.named_parameters()}


def agree(source: str, study: Any, latent_size: int) -> bool:
    """Whether both have the same parameters, logits and gradients."""
    names = dict(NAMES)
    exec(source, names)
    options = {"stop_id": STOP, "conductor_size": S, "bos_id": BOS}
    torch.manual_seed(0)
    theirs = study.TwoLevelDecoder(V, E, H, latent_size, **options)
    ours = names["TwoLevelDecoder"](V, E, H, latent_size, **options)
    if shapes(ours) != shapes(theirs):
        return False
    ours.load_state_dict(theirs.state_dict())
    z = torch.randn(4, latent_size) if latent_size else None
    pairs = zip(results(ours, z), results(theirs, z), strict=True)
    return all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


@pytest.mark.parametrize("latent_size", [0, Z])
def test_the_decoder_computes_what_the_studys_does(
    source: str, study: Any, latent_size: int
) -> None:
    assert agree(source, study, latent_size)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, study: Any, mutant: str) -> None:
    term, other = MUTANTS[mutant]
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    assert not agree(source.replace(term, other), study, Z)


def test_no_cell_of_it_has_more_than_thirty_lines(chapters: dict[int, NotebookNode]) -> None:
    starts = "def by_sentence(", "class Levels(", "class TwoLevelDecoder("
    for cell in chapters[12].cells:
        if cell.source.startswith(starts):
            assert len(cell.source.splitlines()) <= 30
