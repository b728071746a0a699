from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutvae.data.batches.images import ImageBatches, binarise
from tutvae.data.corpus import Images


def numbered(count: int) -> Images:
    """`count` images of 2 x 4 pixels that are their numbers in binary: sure under binarisation."""
    numbers = torch.arange(count)
    bits = (numbers[:, None] >> torch.arange(8)) & 1
    return Images(bits.float(), numbers, 2, 4)


def grey(count: int = 6) -> Images:
    return Images(torch.full((count, 12), 0.5), torch.zeros(count), 3, 4)


def numbers(batches: ImageBatches) -> list[int]:
    """The numbers of the images in an epoch, in order."""
    return [int((row * 2 ** torch.arange(8)).sum()) for batch in batches for row in batch]


def epoch(batches: ImageBatches) -> Tensor:
    return torch.cat(list(batches))


class TestBinarise:
    def test_intensities_are_probabilities(self) -> None:
        pixels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).expand(20_000, 5)
        draws = binarise(pixels, torch.Generator().manual_seed(0))
        assert set(draws.unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(draws.mean(0), pixels[0], atol=0.015, rtol=0)
        assert draws[:, 0].sum() == 0
        assert draws[:, 4].sum() == 20_000

    def test_the_global_generator_by_default(self) -> None:
        pixels = grey().pixels
        torch.manual_seed(0)
        first = binarise(pixels)
        assert not torch.equal(first, binarise(pixels))
        torch.manual_seed(0)
        assert torch.equal(first, binarise(pixels))


@given(count=st.integers(1, 30), batch_size=st.integers(1, 35), shuffle=st.booleans())
def test_an_epoch_shows_every_image_once(count: int, batch_size: int, shuffle: bool) -> None:
    batches = ImageBatches(numbered(count), batch_size, shuffle=shuffle)
    for _ in range(2):
        sizes = [len(batch) for batch in batches]
        assert len(sizes) == len(batches)
        assert all(size == batch_size for size in sizes[:-1])
        assert 1 <= sizes[-1] <= batch_size
        assert sorted(numbers(batches)) == list(range(count))


def test_in_training_each_epoch_has_a_new_order() -> None:
    batches = ImageBatches(numbered(40), 7, shuffle=True)
    orders = [numbers(batches) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != list(range(40))


def test_in_training_each_epoch_has_a_new_binarisation() -> None:
    """Compared as sets of rows, so that the order plays no part."""
    batches = ImageBatches(grey(), 4, shuffle=True)
    first, second = ({tuple(row.tolist()) for row in epoch(batches)} for _ in range(2))
    assert first != second


def test_in_measuring_order_and_binarisation_are_fixed() -> None:
    batches = ImageBatches(numbered(40), 7, shuffle=False)
    assert numbers(batches) == list(range(40))
    batches = ImageBatches(grey(), 4, shuffle=False)
    assert torch.equal(epoch(batches), epoch(batches))
    assert 0 < epoch(batches).mean() < 1


def test_in_measuring_an_epoch_that_was_broken_off_changes_nothing() -> None:
    batches = ImageBatches(grey(), 2, shuffle=False)
    whole = epoch(batches)
    next(iter(batches))
    assert torch.equal(epoch(batches), whole)


@given(batch_size=st.integers(1, 8))
def test_in_measuring_the_batch_size_changes_nothing(batch_size: int) -> None:
    whole = epoch(ImageBatches(grey(), 6, shuffle=False, seed=2))
    assert torch.equal(epoch(ImageBatches(grey(), batch_size, shuffle=False, seed=2)), whole)


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_seed_alone_decides(shuffle: bool) -> None:
    def pixels(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        return epoch(ImageBatches(grey(), 4, shuffle=shuffle, seed=seed))

    assert torch.equal(pixels(0, 1), pixels(0, 2))
    assert not torch.equal(pixels(0, 1), pixels(3, 1))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_global_random_state_is_left_alone(shuffle: bool) -> None:
    before = torch.get_rng_state()
    epoch(ImageBatches(grey(), 4, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before)


def test_in_training_an_epoch_that_was_broken_off_starts_again() -> None:
    batches = ImageBatches(grey(), 2, shuffle=True)
    begun = next(iter(batches))
    assert torch.equal(next(iter(batches)), begun)


def test_a_state_of_other_images_is_refused() -> None:
    state = ImageBatches(grey(), 4, shuffle=True).state_dict()
    with pytest.raises(ValueError, match="these batches have images 7"):
        ImageBatches(grey(7), 4, shuffle=True).load_state_dict(state)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        ImageBatches(grey(0), 4, shuffle=True)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_one(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {batch_size}"):
        ImageBatches(grey(), batch_size, shuffle=True)


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_goes_on_from_any_batch(shuffle: bool) -> None:
    """By states taken after each batch, of which each but the first is itself resumed."""
    whole = ImageBatches(grey(), 4, shuffle=shuffle)
    expected = [*whole, *whole]
    state = ImageBatches(grey(), 4, shuffle=shuffle).state_dict()
    for batch in expected:
        resumed = ImageBatches(grey(), 4, shuffle=shuffle, seed=0)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        iterator = iter(resumed)
        drawn = next(iterator, None)
        if drawn is None:  # the state was taken in an epoch's last batch
            iterator = iter(resumed)
            drawn = next(iterator)
        assert torch.equal(drawn, batch)
        state = resumed.state_dict()
