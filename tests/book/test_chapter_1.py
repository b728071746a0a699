"""The VAE of chapter 1, without the package's guard, computes what `tutvae.VAE` does."""

import pytest
import torch
from nbformat import NotebookNode
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import tutvae
from tutvae import Elbo
from tutvae.models import BernoulliDecoder, GaussianEncoder

D, Z = 9, 3
# A change of any term, and how it would read.
MUTANTS = {
    "layers in the same order on both sides": ("hidden_sizes[::-1]", "hidden_sizes"),
    "no hidden layer": ("(data_size, hidden_sizes, latent_size)", "(data_size, (), latent_size)"),
    "another prior": ("torch.ones_like(mean)", "2 * torch.ones_like(mean)"),
    "a prior elsewhere": ("torch.zeros_like", "torch.ones_like"),
    "a mean over pixels": (".log_prob(x).sum(-1)", ".log_prob(x).mean(-1)"),
    "no sample": ("q.rsample()", "q.loc"),
    "no gradient through the sample": ("q.rsample()", "q.sample()"),
    "the other direction of the KL": ("(q, self.prior())", "(self.prior(), q)"),
    "a sign": ("-self.log_likelihood(x, z)", "self.log_likelihood(x, z)"),
    "a mean over dimensions": ("kl.sum(-1)", "kl.mean(-1)"),
    "the image of its own": ("self.encoder(x)", "self.encoder(0 * x)"),
    "the code of its own": ("self.decoder(z)", "self.decoder(0 * z)"),
}


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The chapter's class."""
    tagged = [c for c in chapters[1].cells if "behaves-as:VAE" in c.metadata.get("tags", [])]
    return str(tagged[0].source)


def chapters_model(source: str) -> nn.Module:
    names = {"torch": torch, "nn": nn, "Elbo": Elbo, "Normal": Normal}
    names |= {"kl_divergence": kl_divergence, "GaussianEncoder": GaussianEncoder}
    names |= {"BernoulliDecoder": BernoulliDecoder}
    exec(source, names)
    torch.manual_seed(0)
    return names["VAE"](D, Z, (5, 4))


def packages_model() -> nn.Module:
    torch.manual_seed(0)
    return tutvae.VAE(D, Z, (5, 4))


def computed(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The terms of the bound and all gradients, under the same noise."""
    model.zero_grad()
    torch.manual_seed(2)
    elbo = model(x)
    elbo.loss().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    return {**elbo.terms, "kl_per_dimension": elbo.kl_per_dimension, **gradients}


def agree(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two models have the same parameters and compute the same from random images."""
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return False
    torch.manual_seed(1)
    for B in (1, 2, 7):
        x = torch.bernoulli(torch.rand(B, D))
        one, other = computed(ours, x), computed(theirs, x)
        if not all(same(one[name], other[name]) for name in other):
            return False
    return True


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors, or two absent gradients, are equal to 1e-5."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


def test_the_chapter_computes_what_the_package_does(source: str) -> None:
    assert agree(chapters_model(source), packages_model())


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, mutant: str) -> None:
    term, changed = MUTANTS[mutant]
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    assert not agree(chapters_model(source.replace(term, changed)), packages_model())


def test_prior_and_codes_score_images_alike(source: str) -> None:
    ours, theirs = chapters_model(source), packages_model()
    assert torch.equal(ours.prior().stddev, theirs.prior().stddev)
    x, z = torch.ones(2, D), torch.randn(4, 2, Z)
    assert torch.allclose(ours.log_likelihood(x, z), theirs.log_likelihood(x, z), atol=1e-5)
