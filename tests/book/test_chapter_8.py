"""The models of chapter 8 compute what the package's semi-supervised model does."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nbformat import NotebookNode
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

import tutvae
from tutvae import Elbo, EncodedTexts, LabelElbo, TextBatch

V, E, H, Z, K = 11, 4, 6, 8, 3
NAMES: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math, "K": K}
NAMES |= {"Categorical": Categorical, "Normal": Normal, "kl_divergence": kl_divergence}
NAMES |= {"Elbo": Elbo, "LabelElbo": LabelElbo}

# A change of any term, and how it would read.
SEQUENCE_MUTANTS = {
    "no label in the scale": ("torch.exp(model.log_scale_shift(y))", "1"),
    "no label in the mean": ("q.loc + model.mean_shift(y)", "q.loc"),
    "no noise": ("q.scale * noise", "0 * noise"),
    "no label for the decoder": ("* noise, y]", "* noise, 0 * y]"),
    "the word that is read": ("batch.targets", "batch.inputs"),
    "no mask": ("costs * batch.mask", "costs"),
    "another prior": ("Normal(0.0, 1.0)", "Normal(0.0, 2.0)"),
    "the guess for all": ("torch.where(known[:, None], own, q_y.probs)", "q_y.probs"),
    "equal weights": ("own, q_y.probs)", "own, 1 / q_y.probs.shape[1])"),
    "no KL": ("kl=kl.sum(1)", "kl=0 * kl.sum(1)"),
    "no entropy": ("~known * q_y", "0 * q_y"),
    "an entropy for all": ("~known * q_y", "q_y"),
    "the classifier of all": ("known * -(own", "-(own"),
    "a linear layer without bias": ("nn.Linear(H, K)", "nn.Linear(H, K, bias=False)"),
}
CLASSIFIER_MUTANTS = {
    "the other sign": ("cost = -q_y", "cost = q_y"),
    "no dropout": ("self.logits(self.dropout(features))", "self.logits(features)"),
}
BAG_MUTANTS = {
    "plain counts": ("torch.log1p(x)", "x"),
    "no relu": ("torch.relu(self.hidden(torch.log1p(x)))", "self.hidden(torch.log1p(x))"),
    "another scale": ("0.5 * self.log_variance", "self.log_variance"),
    "no label for the code": ("torch.cat([h, y], 1)", "torch.cat([h, 0 * y], 1)"),
    "no label for the words": ("torch.cat([z, y], 1)", "torch.cat([z, 0 * y], 1)"),
    "no noise": ("q.loc + q.scale * noise", "q.loc"),
    "a mean over dimensions": ("Normal(0.0, 1.0)).sum(1)", "Normal(0.0, 1.0)).mean(1)"),
    "no weight of the KL": ("kl_weight * kl", "kl"),
    "no weight of the label's KL": ("kl_weight * log_q", "log_q"),
    "no alpha": ("alpha * classification", "classification"),
    "equal guesses": ("log_q.exp() * (", "1 / K * ("),
}


@pytest.fixture(scope="module")
def chapter_8(chapters: dict[int, NotebookNode]) -> list[NotebookNode]:
    return chapters[8].cells


def tagged(cells: list[NotebookNode], name: str) -> str:
    """The cells that define a class of the package, in their order."""
    tag = f"behaves-as:{name}"
    return "\n\n".join(c.source for c in cells if tag in c.metadata.get("tags", []))


def defining(cells: list[NotebookNode], *names: str) -> str:
    """The cells that define some names."""
    starts = tuple(f"{kind} {name}(" for name in names for kind in ("class", "def"))
    return "\n\n".join(cell.source for cell in cells if cell.source.startswith(starts))


def changed(source: str, mutant: tuple[str, str]) -> str:
    term, other = mutant
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    return source.replace(term, other)


def run(source: str) -> dict[str, Any]:
    names = dict(NAMES)
    exec(source, names)
    return names


def random_batches() -> Iterator[TextBatch]:
    torch.manual_seed(1)
    for sizes, labels in (([3, 7, 1], [-1, 2, 0]), ([2, 5], [-1, -1]), ([4], [1])):
        rows = [[1, *torch.randint(4, V, (n,)).tolist(), 2] for n in sizes]
        yield EncodedTexts(rows, labels).batch()


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    encoder = tutvae.LSTMEncoder(V, E, H, Z)
    return encoder, tutvae.DilatedConvDecoder(V, E, H, Z + K, dilations=[1])


def computed(model: nn.Module, batch: TextBatch) -> dict[str, Tensor]:
    """The terms of the bound and all gradients, under the same noise."""
    model.zero_grad()
    torch.manual_seed(2)
    elbo = model(batch)
    elbo.loss(0.7).backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    found |= {**elbo.terms, "kl_per_dimension": elbo.kl_per_dimension}
    return found | {"classification": getattr(elbo, "classification", None)}


def agree(ours: nn.Module, theirs: nn.Module, batches: Iterator[TextBatch]) -> bool:
    """Whether two models have the same parameters and compute the same from random batches."""
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return False
    ours.load_state_dict(theirs.state_dict(), strict=False)
    for batch in batches:
        one, other = computed(ours, batch), computed(theirs, batch)
        for name, value in other.items():
            if value is not None and not torch.allclose(one[name], value, atol=1e-5):
                return False
    return True


def sequence_models_agree(source: str) -> bool:
    theirs = tutvae.SemiSupervisedTextVAE(*parts(), K)
    ours = run(source)["SemiSupervisedTextVAE"](*parts(), K)
    return agree(ours, theirs, random_batches())


def classifiers_agree(source: str) -> bool:
    theirs = tutvae.TextClassifier(parts()[0], K, dropout=0.5)
    ours = run(source)["TextClassifier"](parts()[0], K, dropout=0.5)
    labelled = (batch for batch in random_batches() if batch.labels.min() >= 0)
    return agree(ours, theirs, labelled)


class Counting(nn.Module):
    """An encoder that counts words, for the package's model."""

    vocabulary_size, hidden_size, latent_size = V, H, Z

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean = nn.Linear(V, H), nn.Linear(H, Z)
        self.log_variance = nn.Linear(H, Z)

    def features(self, batch: TextBatch) -> Tensor:
        return torch.relu(self.hidden(torch.log1p(counts(batch))))

    def posterior(self, features: Tensor) -> Normal:
        return Normal(self.mean(features), torch.exp(0.5 * self.log_variance(features)))


class Reading(nn.Module):
    """A decoder that reads nothing but its code."""

    vocabulary_size, latent_size, receptive_field = V, Z + K, 0

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(Z + K, V)

    def forward(self, inputs: Tensor, z: Tensor) -> Tensor:
        return z[:, None].expand(-1, inputs.shape[1], -1)


def counts(batch: TextBatch) -> Tensor:
    """How often a document has each word, the end mark included, `[B, V]`."""
    rows = zip(batch.targets, batch.mask, strict=True)
    return torch.stack([torch.bincount(row[mask], minlength=V) for row, mask in rows]).float()


def bag_models_agree(source: str) -> bool:
    """Whether both bounds and their gradients are those of the package's model."""
    torch.manual_seed(0)
    package = tutvae.SemiSupervisedTextVAE(Counting(), Reading(), K, classification_weight=3.0)
    names = run(source)
    ours, encoder = names["BagVAE"](V, K, H=H, Z=Z), package.encoder
    shifts = {"mean": package.mean_shift.weight, "log_variance": 2 * package.log_scale_shift.weight}
    state = {"words." + n: p for n, p in package.decoder.project.named_parameters()}
    state |= {"hidden." + n: p for n, p in encoder.hidden.named_parameters()}
    state |= {"label." + n: p for n, p in package.label_head.logits.named_parameters()}
    for name, shift in shifts.items():
        layer = getattr(encoder, name)
        state |= {f"{name}.weight": torch.cat([layer.weight, shift], 1), f"{name}.bias": layer.bias}
    ours.load_state_dict(state)
    pairs = [(ours.words, package.decoder.project), (ours.hidden, encoder.hidden)]
    pairs += [(ours.label, package.label_head.logits), (ours.mean, encoder.mean)]
    rows = [[1, 4, 5, 5, 2], [1, 7, 8, 9, 10, 4, 2], [1, 6, 2]]
    for labels in ([0, 2, 1], [-1, -1, -1]):
        batch = EncodedTexts(rows, labels).batch()
        x, known = counts(batch), torch.tensor(labels)
        for model in (ours, package):
            model.zero_grad()
        torch.manual_seed(2)
        theirs = package(batch).loss(0.7)
        torch.manual_seed(2)
        if labels[0] < 0:
            cost = names["unlabelled_cost"](ours, x, 0.7)
        else:
            cost = sum(names["labelled_cost"](ours, x, F.one_hot(known, K).float(), 0.7, 3.0))
        theirs.backward()
        cost.backward()
        if not torch.isclose(cost + 0.7 * math.log(K), theirs, atol=1e-5):
            return False
        for one, other in pairs:
            width = other.weight.shape[1]
            if not torch.allclose(one.weight.grad[:, :width], other.weight.grad, atol=1e-5):
                return False
    return True


@pytest.fixture(scope="module")
def sequence(chapter_8: list[NotebookNode]) -> str:
    head = tagged(chapter_8, "LabelHead")
    return head + "\n\n" + tagged(chapter_8, "SemiSupervisedTextVAE")


@pytest.fixture(scope="module")
def classifier(chapter_8: list[NotebookNode]) -> str:
    return tagged(chapter_8, "TextClassifier")


@pytest.fixture(scope="module")
def bag(chapter_8: list[NotebookNode]) -> str:
    return defining(chapter_8, "BagVAE", "labelled_cost")


def test_the_model_for_any_decoder_computes_what_the_package_does(sequence: str) -> None:
    assert sequence_models_agree(sequence)


def test_the_classifier_computes_what_the_package_does(classifier: str) -> None:
    assert classifiers_agree(classifier)


def test_the_bag_vae_is_the_packages_model_with_counts_and_a_linear_decoder(bag: str) -> None:
    assert bag_models_agree(bag)


@pytest.mark.parametrize("mutant", SEQUENCE_MUTANTS)
def test_a_change_of_any_term_of_the_model_is_seen(sequence: str, mutant: str) -> None:
    assert not sequence_models_agree(changed(sequence, SEQUENCE_MUTANTS[mutant]))


@pytest.mark.parametrize("mutant", CLASSIFIER_MUTANTS)
def test_a_change_of_any_term_of_the_classifier_is_seen(classifier: str, mutant: str) -> None:
    assert not classifiers_agree(changed(classifier, CLASSIFIER_MUTANTS[mutant]))


@pytest.mark.parametrize("mutant", BAG_MUTANTS)
def test_a_change_of_any_term_of_the_bag_vae_is_seen(bag: str, mutant: str) -> None:
    assert not bag_models_agree(changed(bag, BAG_MUTANTS[mutant]))


def test_the_bag_vae_and_its_two_bounds_are_read_in_forty_lines(bag: str) -> None:
    lines = [line.strip() for line in bag.splitlines()]
    assert sum(bool(line) and not line.startswith('"""') for line in lines) <= 40
