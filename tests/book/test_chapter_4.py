"""The forty lines of chapter 4 compute what the package's classes of the same names do."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from nbformat import NotebookNode
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import tutvae
from tutvae import Elbo, EncodedTexts, TextBatch

V, E, H, Z = 11, 4, 6, 3
NAMES = ("LSTMEncoder", "LSTMDecoder", "TextVAE")
# A change of any term, and how it would read.
MUTANTS = {
    "the state of another word": ("batch.lengths - 1", "batch.lengths - 2"),
    "the state after the padding": ("batch.lengths - 1", "-1"),
    "another scale": ("0.5 * self.log_variance", "self.log_variance"),
    "no code in the first state": ("self.code_to_cell(z)", "self.code_to_cell(0 * z)"),
    "no tanh": ("torch.tanh(cell)", "cell"),
    "no code at the words": ("z[:, None]", "0 * z[:, None]"),
    "no bias": ("nn.Linear(H, V)", "nn.Linear(H, V, bias=False)"),
    "no sample": ("q.rsample()", "q.loc"),
    "no gradient through the sample": ("q.rsample()", "q.sample()"),
    "the word that is read": ("batch.targets", "batch.inputs"),
    "no mask": ("costs * batch.mask", "costs"),
    "a mean over words": (".sum(1)  # [B] nats", ".mean(1)"),
    "another prior": ("Normal(0.0, 1.0)", "Normal(0.0, 2.0)"),
    "the other direction of the KL": ("(q, Normal(0.0, 1.0))", "(Normal(0.0, 1.0), q)"),
    "a mean over dimensions": ("kl.sum(1)", "kl.mean(1)"),
}


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The chapter's three classes, in their order."""
    cells = {
        tag: cell.source for cell in chapters[4].cells for tag in cell.metadata.get("tags", [])
    }
    return "\n\n".join(cells[f"behaves-as:{name}"] for name in NAMES)


def chapters_model(source: str) -> nn.Module:
    names = {"torch": torch, "nn": nn, "F": F, "Elbo": Elbo}
    names |= {"Normal": Normal, "kl_divergence": kl_divergence}
    exec(source, names)
    torch.manual_seed(0)
    parts = (names[part](V, E, H, Z) for part in NAMES[:2])
    return names["TextVAE"](*parts)


def packages_model() -> nn.Module:
    torch.manual_seed(0)
    return tutvae.TextVAE(tutvae.LSTMEncoder(V, E, H, Z), tutvae.LSTMDecoder(V, E, H, Z))


def random_batches() -> Iterator[TextBatch]:
    torch.manual_seed(1)
    for sizes in ([3, 7, 1], [2, 5], [4]):
        yield EncodedTexts([[1, *torch.randint(4, V, (n,)).tolist(), 2] for n in sizes]).batch()


def computed(model: nn.Module, batch: TextBatch) -> dict[str, Tensor]:
    """The terms of the bound and all gradients, under the same noise."""
    model.zero_grad()
    torch.manual_seed(2)
    elbo = model(batch)
    elbo.loss().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    return {**elbo.terms, "kl_per_dimension": elbo.kl_per_dimension, **gradients}


def agree(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two models have the same parameters and compute the same from random batches."""
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return False
    for batch in random_batches():
        one, other = computed(ours, batch), computed(theirs, batch)
        if not all(torch.allclose(one[name], other[name], atol=1e-5) for name in other):
            return False
    return True


def test_the_chapter_computes_what_the_package_does(source: str) -> None:
    assert agree(chapters_model(source), packages_model())


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, mutant: str) -> None:
    term, changed = MUTANTS[mutant]
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    assert not agree(chapters_model(source.replace(term, changed)), packages_model())


def test_the_model_is_read_in_forty_lines(source: str) -> None:
    lines = [line.strip() for line in source.splitlines()]
    assert sum(bool(line) and not line.startswith('"""') for line in lines) <= 40
