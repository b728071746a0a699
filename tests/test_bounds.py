from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutvae.bounds import Elbo, FreeBitsPer, LabelElbo, importance_weighted_bound

# B = 3 examples, Z = 2 dimensions. Means over the batch: 0.5 and 2.0 nats.
KL_PER_DIMENSION = torch.tensor([[0.3, 3.0], [0.0, 1.0], [1.2, 2.0]])
RECONSTRUCTION = torch.tensor([10.0, 20.0, 60.0])

nats = st.floats(-200, 200, allow_nan=False, width=32)


def elbo() -> Elbo:
    return Elbo(RECONSTRUCTION, KL_PER_DIMENSION.sum(1), KL_PER_DIMENSION)


def test_value_is_minus_reconstruction_minus_kl() -> None:
    torch.testing.assert_close(elbo().value, torch.tensor([-13.3, -21.0, -63.2]))


def test_loss_is_the_batch_mean_of_the_negative_bound() -> None:
    assert elbo().loss().item() == pytest.approx(30 + 2.5)
    assert elbo().loss().item() == pytest.approx(-elbo().value.mean().item())


@pytest.mark.parametrize(("kl_weight", "loss"), [(0.0, 30.0), (0.25, 30.625), (4.0, 40.0)])
def test_kl_weight_multiplies_the_kl_alone(kl_weight: float, loss: float) -> None:
    assert elbo().loss(kl_weight).item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("free_bits", "kl"),
    [
        (0.1, 2.5),  # below both means: no effect, though single examples lie below
        (0.5, 2.5),
        (0.75, 0.75 + 2.0),
        (2.0, 2.0 + 2.0),
        (3.0, 3.0 + 3.0),
    ],
)
@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_free_bits_by_hand(free_bits: float, kl: float, kl_weight: float) -> None:
    loss = elbo().loss(kl_weight, free_bits=free_bits)
    assert loss.item() == pytest.approx(30 + kl_weight * kl)


@given(free_bits=st.floats(0.01, 5), step=st.floats(1e-4, 1e-2))
def test_free_bits_do_not_jump_at_the_threshold(free_bits: float, step: float) -> None:
    def loss(kl: float) -> float:
        per_dimension = torch.full((3, 2), kl, dtype=torch.float64)
        bound = Elbo(RECONSTRUCTION.double(), per_dimension.sum(1), per_dimension)
        return bound.loss(free_bits=free_bits).item()

    below, at, above = loss(free_bits - step), loss(free_bits), loss(free_bits + step)
    assert below == pytest.approx(at, abs=1e-9)
    assert above - at == pytest.approx(2 * step, abs=1e-9)


@given(free_bits=st.floats(1e-9, 0.49))
def test_free_bits_that_nobody_needs_leave_the_bound(free_bits: float) -> None:
    assert elbo().loss(free_bits=free_bits).item() == pytest.approx(elbo().loss().item())


def test_gradient_of_a_free_dimension_is_zero() -> None:
    kl = KL_PER_DIMENSION.clone().requires_grad_()
    Elbo(RECONSTRUCTION, kl.sum(1), kl).loss(free_bits=0.75).backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 1 / 3]]).expand(3, 2))


def test_free_bits_need_the_kl_per_dimension() -> None:
    bound = Elbo(RECONSTRUCTION, KL_PER_DIMENSION.sum(1))
    assert bound.loss().item() == pytest.approx(32.5)
    with pytest.raises(ValueError, match="kl_per_dimension"):
        bound.loss(free_bits=0.5)


# KL of the three examples: 3.3, 1.0 and 3.2 nats; their mean is 2.5.
@pytest.mark.parametrize(
    ("per", "free_bits", "kl"),
    [
        ("dimension", 0.75, 0.75 + 2.0),
        ("total", 2.4, 2.5),
        ("total", 3.0, 3.0),
        ("example", 0.9, 2.5),
        ("example", 3.1, (3.3 + 3.1 + 3.2) / 3),
        ("example", 4.0, 4.0),
    ],
)
@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_free_bits_per(per: FreeBitsPer, free_bits: float, kl: float, kl_weight: float) -> None:
    loss = elbo().loss(kl_weight, free_bits=free_bits, free_bits_per=per)
    assert loss.item() == pytest.approx(30 + kl_weight * kl)


@pytest.mark.parametrize(
    ("per", "gradient"),
    [
        ("dimension", [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
        ("total", [[1 / 3, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 1 / 3]]),
        ("example", [[1 / 3, 1 / 3], [0.0, 0.0], [1 / 3, 1 / 3]]),
    ],
)
def test_whose_gradient_free_bits_stop(per: FreeBitsPer, gradient: list[list[float]]) -> None:
    kl = KL_PER_DIMENSION.clone().requires_grad_()
    Elbo(RECONSTRUCTION, kl.sum(1), kl).loss(free_bits=2.2, free_bits_per=per).backward()
    torch.testing.assert_close(kl.grad, torch.tensor(gradient))


@pytest.mark.parametrize("per", ["total", "example"])
def test_these_free_bits_do_without_the_kl_per_dimension(per: FreeBitsPer) -> None:
    loss = Elbo(RECONSTRUCTION, KL_PER_DIMENSION.sum(1)).loss(free_bits=4.0, free_bits_per=per)
    assert loss.item() == pytest.approx(30 + 4)


# The mean KL is 2.5 nats; a nat above the rate costs four.
@pytest.mark.parametrize(("rate", "kl"), [(1.0, 1 + 4 * 1.5), (2.5, 2.5), (6.0, 6.0)])
@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_a_held_rate_by_hand(rate: float, kl: float, kl_weight: float) -> None:
    assert elbo().loss(kl_weight, rate=rate).item() == pytest.approx(30 + kl_weight * kl)


@pytest.mark.parametrize(("rate", "gradient"), [(1.0, 4 / 3), (2.6, 0.0)])
def test_below_a_rate_the_kl_is_free_and_above_it_a_nat_costs_four(
    rate: float, gradient: float
) -> None:
    kl = KL_PER_DIMENSION.sum(1).requires_grad_()
    Elbo(RECONSTRUCTION, kl).loss(rate=rate).backward()
    torch.testing.assert_close(kl.grad, torch.full((3,), gradient))


def test_a_rate_and_free_bits_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave free_bits out"):
        elbo().loss(free_bits=0.5, rate=2.0)


def test_with_labels_the_rate_is_of_the_code_in_each_of_the_two_means() -> None:
    zero, labelled = torch.zeros(3), torch.tensor([True, False, False])
    label_kl = torch.tensor([0.7, 0.2, 0.4])
    bound = LabelElbo(
        RECONSTRUCTION,
        torch.tensor([5.0, 1.0, 2.0]),
        KL_PER_DIMENSION,
        label_kl=label_kl,
        classification=zero,
        labelled=labelled,
    )
    with_label, without = 10 + (3 + 4 * 2) + 0.7, 40 + 3 + 0.3
    assert bound.loss(rate=3.0).item() == pytest.approx(with_label + without)


def test_unknown_free_bits() -> None:
    with pytest.raises(
        ValueError, match=r"one of \('dimension', 'total', 'example'\), not 'batch'"
    ):
        elbo().loss(free_bits_per="batch")  # type: ignore[arg-type]


def test_a_bound_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        elbo().kl = RECONSTRUCTION  # type: ignore[misc]


def log_weights(rows: int) -> st.SearchStrategy[Tensor]:
    """`[S, B]` log weights with B = 3."""
    row = st.lists(nats, min_size=3, max_size=3)
    return st.lists(row, min_size=rows, max_size=rows).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    )


def test_importance_weighted_bound_by_hand() -> None:
    weights = torch.tensor([[1.0, 8.0], [3.0, 2.0]]).log()  # [S, B]
    torch.testing.assert_close(importance_weighted_bound(weights), torch.tensor([2.0, 5.0]).log())


@given(log_weights(1))
def test_one_sample_is_the_elbo(weights: Tensor) -> None:
    torch.testing.assert_close(importance_weighted_bound(weights), weights[0])


@given(weights=log_weights(5), shift=st.floats(-1e4, 1e4))
def test_a_common_factor_comes_out(weights: Tensor, shift: float) -> None:
    """Also where exp would underflow to 0 or overflow."""
    shifted = importance_weighted_bound(weights + shift)
    torch.testing.assert_close(shifted, importance_weighted_bound(weights) + shift)


@given(log_weights(6))
def test_more_samples_bound_from_nearer(weights: Tensor) -> None:
    """The bound on all S samples is at least the average of the bounds on its parts."""
    whole = importance_weighted_bound(weights)
    for parts in (2, 3, 6):
        average = torch.stack([importance_weighted_bound(w) for w in weights.chunk(parts)]).mean(0)
        assert (whole >= average - 1e-9).all()
    assert (whole <= weights.amax(0) + 1e-9).all()
    assert (whole >= weights.amax(0) - math.log(6) - 1e-9).all()


# B = 5 documents, of which 0 and 3 have a label, Z = 2 dimensions.
LABELLED = torch.tensor([True, False, False, True, False])
KL_OF_Z = torch.tensor([[1.0, 3.0], [0.2, 1.0], [0.4, 2.0], [2.0, 5.0], [0.6, 3.0]])


def label_elbo(**options: object) -> LabelElbo:
    terms = {
        "reconstruction": torch.tensor([10.0, 20.0, 30.0, 14.0, 70.0]),
        "kl": KL_OF_Z.sum(1),
        "kl_per_dimension": KL_OF_Z,
        "label_kl": torch.tensor([1.5, 0.1, 0.2, 2.5, 0.6]),
        "classification": torch.tensor([0.5, 0.0, 0.0, 3.5, 0.0]),
        "labelled": LABELLED,
    }
    return LabelElbo(**(terms | options))


def only(labelled: bool, **options: object) -> LabelElbo:
    """The rows of `label_elbo` of one kind."""
    rows = LABELLED if labelled else ~LABELLED
    whole = label_elbo()
    names = ("reconstruction", "kl", "kl_per_dimension", "label_kl", "classification", "labelled")
    return LabelElbo(**{name: getattr(whole, name)[rows] for name in names}, **options)


@pytest.mark.parametrize("per", ["dimension", "total", "example"])
def test_weights_that_choose_some_examples_give_their_loss(per: str) -> None:
    reconstruction, kl = torch.tensor([9.0, 4.0, 2.0]), torch.rand(3, 4)
    chosen = Elbo(reconstruction[:2], kl[:2].sum(1), kl[:2])
    weighted = Elbo(reconstruction, kl.sum(1), kl, weights=torch.tensor([0.5, 0.5, 0.0]))
    for options in ({}, {"free_bits": 0.6, "free_bits_per": per}, {"rate": 1.0}):
        torch.testing.assert_close(weighted.loss(0.3, **options), chosen.loss(0.3, **options))


class TestLabelElbo:
    def test_the_value_has_every_term_of_the_bound_and_no_other(self) -> None:
        expected = torch.tensor([-15.5, -21.3, -32.6, -23.5, -74.2])
        torch.testing.assert_close(label_elbo(classification_weight=9.0).value, expected)

    def test_its_terms_add_up_to_the_value(self) -> None:
        terms = label_elbo(classification_weight=9.0).terms
        assert list(terms) == ["reconstruction", "kl", "label_kl"]
        torch.testing.assert_close(-sum(terms.values()), label_elbo().value)

    def test_the_loss_by_hand(self) -> None:
        """Labelled: 12 + 5.5 + 2. Unlabelled: 40 + 2.4 + 0.3. Classification: 2."""
        assert label_elbo().loss().item() == pytest.approx(19.5 + 42.7 + 2)

    @pytest.mark.parametrize(("weight", "cost"), [(0.0, 0.0), (0.5, 1.0), (10.0, 20.0)])
    def test_the_classification_weight(self, weight: float, cost: float) -> None:
        loss = label_elbo(classification_weight=weight).loss()
        assert loss.item() == pytest.approx(62.2 + cost)

    def test_the_labelled_weight_multiplies_the_bound_with_a_label_alone(self) -> None:
        loss = label_elbo(labelled_weight=0.1).loss()
        assert loss.item() == pytest.approx(0.1 * 19.5 + 42.7 + 2)

    @pytest.mark.parametrize("kl_weight", [0.0, 0.25, 2.0])
    def test_the_kl_weight_multiplies_both_kl_alone(self, kl_weight: float) -> None:
        loss = label_elbo().loss(kl_weight)
        assert loss.item() == pytest.approx(12 + 40 + 2 + kl_weight * (7.5 + 2.7))

    @pytest.mark.parametrize(
        ("floor", "label_kl"), [(0.0, 0.3), (0.25, 0.3), (0.4, 0.4), (2.2, 2.2)]
    )
    @pytest.mark.parametrize("kl_weight", [1.0, 0.5])
    def test_the_floor_of_the_label_s_kl(
        self, floor: float, label_kl: float, kl_weight: float
    ) -> None:
        """On the mean over the unlabelled: 0.25 is above two of the three, and does nothing.

        2.2 is above the mean with a label too, which has no floor.
        """
        loss = label_elbo(label_kl_floor=floor).loss(kl_weight)
        assert loss.item() == pytest.approx(54 + kl_weight * (7.5 + 2.4 + label_kl))

    def test_below_the_floor_the_label_is_free(self) -> None:
        for floor, gradient in ((0.29, 1 / 3), (0.31, 0.0)):
            label_kl = torch.tensor([1.5, 0.1, 0.2, 2.5, 0.6], requires_grad=True)
            label_elbo(label_kl=label_kl, label_kl_floor=floor).loss().backward()
            expected = torch.where(LABELLED, 0.5, gradient)
            torch.testing.assert_close(label_kl.grad, expected)

    def test_free_bits_are_those_of_each_kind(self) -> None:
        """Mean KL of z: 1.5 and 4 with a label, 0.4 and 2 without."""
        bound = label_elbo()
        assert bound.loss(free_bits=1.0).item() == pytest.approx(64.2 + 0.6)
        assert bound.loss(0.5, free_bits=3.0).item() == pytest.approx(54 + 0.5 * (2.3 + 6 + 7))
        assert bound.loss(free_bits=5.0, free_bits_per="total").item() == pytest.approx(64.2 + 2.6)
        per_example = bound.loss(free_bits=2.0, free_bits_per="example").item()
        assert per_example == pytest.approx(64.2 + 0.8 / 3)

    def test_the_number_of_documents_of_a_kind_is_not_its_weight(self) -> None:
        both = label_elbo()
        names = ("reconstruction", "kl", "label_kl", "classification", "labelled")
        rows = torch.tensor([0, 1, 1, 2, 2, 3, 4, 4])
        more = LabelElbo(**{name: getattr(both, name)[rows] for name in names})
        assert more.loss().item() == pytest.approx(both.loss().item())

    def test_one_kind_alone(self) -> None:
        assert only(True).loss().item() == pytest.approx(19.5 + 2)
        assert only(False, label_kl_floor=0.4).loss().item() == pytest.approx(42.7 + 0.1)
        assert only(False).loss().item() == pytest.approx(-only(False).value.mean().item())

    @pytest.mark.parametrize("kind", [True, False])
    def test_documents_that_are_not_there_cost_nothing(self, kind: bool) -> None:
        """Neither their free bits, nor their rate, nor their label's floor."""
        bound = only(kind, label_kl_floor=0.0)
        assert only(kind, label_kl_floor=0.0).loss(rate=50.0).item() == pytest.approx(
            bound.loss(0.0).item() + 50 + bound.label_kl.mean().item()
        )

    def test_it_does_without_the_kl_per_dimension(self) -> None:
        assert label_elbo(kl_per_dimension=None).loss().item() == pytest.approx(64.2)
        with pytest.raises(ValueError, match="kl_per_dimension"):
            label_elbo(kl_per_dimension=None).loss(free_bits=0.5)

    def test_it_does_not_change(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            label_elbo().label_kl = RECONSTRUCTION  # type: ignore[misc]
