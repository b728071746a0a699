"""Few labels: which documents keep theirs, and the batches made of both kinds."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutvae.data.batches.labelled import MixedBatches, label_subset
from tutvae.data.batches.text import Batches, EncodedTexts

BOS, EOS, PAD = 1, 2, 9


def texts(lengths, first=10, labels=None):
    """Distinct documents: the word of each tells its position, from `first` on."""
    documents = [[BOS, *[first + i] * (n - 2), EOS] for i, n in enumerate(lengths)]
    return EncodedTexts(documents, labels, pad_id=PAD)


def labelled(count=5):
    """Documents of 4 to 12 tokens whose word is 1000 + their position, their label twice that."""
    lengths = [4 + 3 * i % 9 for i in range(count)]
    return texts(lengths, 1000, [2 * i for i in range(count)])


def unlabelled(count=23):
    """Documents of 3 to 8 tokens; their labels are there, and must not be seen."""
    return texts([3 + i % 6 for i in range(count)], 100, [77] * count)


def words(batch):
    return batch.tokens[:, 1].tolist()


def with_label(batch):
    return [word for word, label in zip(words(batch), batch.labels, strict=True) if label >= 0]


class TestLabelSubset:
    @given(
        sizes=st.lists(st.integers(5, 12), min_size=1, max_size=5),
        share=st.integers(1, 4),
        rest=st.integers(0, 4),
        seed=st.integers(0, 3),
    )
    def test_classes_differ_by_at_most_one_document(self, sizes, share, rest, seed):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
        count = share * len(sizes) + rest % len(sizes)
        positions = label_subset(labels, count, seed)
        assert len(positions) == count == len(set(positions.tolist()))
        shares = Counter(labels[positions].tolist())
        assert set(shares) == set(range(len(sizes)))
        assert max(shares.values()) - min(shares.values()) <= 1

    def test_one_seed_one_subset(self):
        labels = [0, 1, 2] * 30
        first = label_subset(labels, 11, seed=4)
        assert np.array_equal(first, np.sort(first))
        assert np.array_equal(first, label_subset(torch.tensor(labels), 11, seed=4))
        assert not np.array_equal(first, label_subset(labels, 11, seed=5))

    def test_a_smaller_subset_is_part_of_a_larger_one(self):
        labels = np.random.default_rng(1).integers(0, 4, 200)
        subsets = [set(label_subset(labels, n, seed=2).tolist()) for n in range(4, 60)]
        assert all(small < large for small, large in itertools.pairwise(subsets))

    def test_which_class_gets_the_odd_document_is_drawn(self):
        labels = [0, 1, 2] * 30
        odd = {
            Counter(labels[i] for i in label_subset(labels, 4, seed)).most_common(1)[0][0]
            for seed in range(30)
        }
        assert odd == {0, 1, 2}

    def test_every_document_of_a_class_can_be_drawn(self):
        drawn = [label_subset([0, 1, 0, 1, 0, 1], 2, seed) for seed in range(60)]
        assert set(np.concatenate(drawn).tolist()) == set(range(6))

    def test_documents_without_a_label_are_not_drawn(self):
        labels = np.array([-1, 3, -1, 5, 3, 5, -1])
        assert label_subset(labels, 4, seed=0).tolist() == [1, 3, 4, 5]

    def test_one_class(self):
        assert label_subset([6, 6, 6], 3, seed=0).tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        ("labels", "count", "message"),
        [
            ([0, 0, 0, 1], 4, "class 1 has 1 documents, too few to draw 2"),
            ([0, 1, 2, 2], 2, "2 labels cannot be spread over 3 classes"),
            ([0, 1], 0, "0 labels cannot be spread over 2 classes"),
            ([-1, -1], 1, "1 labels cannot be spread over 0 classes"),
            ([], 1, "over 0 classes"),
        ],
    )
    def test_too_few(self, labels, count, message):
        with pytest.raises(ValueError, match=message):
            label_subset(labels, count, seed=0)


class TestMixedBatches:
    @pytest.mark.parametrize("size", [{"batch_size": 4}, {"token_budget": 30}])
    def test_an_epoch_is_one_pass_over_the_unlabelled(self, size):
        batches = MixedBatches(labelled(), unlabelled(), labelled_size=3, **size)
        for epoch in range(3):
            assert batches.epoch == epoch
            count = len(batches)
            drawn = list(batches)
            assert len(drawn) == count > 4
            seen = [word for batch in drawn for word in words(batch) if word < 1000]
            assert sorted(seen) == list(range(100, 123))
            assert all(len(with_label(batch)) == 3 for batch in drawn)

    def test_every_row_is_its_document(self):
        known = labelled()
        for batch in MixedBatches(known, unlabelled(), labelled_size=3, batch_size=4):
            assert batch.tokens.shape == (len(batch), int(batch.lengths.max()))
            assert batch.positions is None
            rows = zip(batch.tokens, batch.lengths, batch.labels, strict=True)
            for tokens, length, label in rows:
                word = int(tokens[1])
                expected = 2 * (word - 1000) if word >= 1000 else -1
                assert label == expected
                inside = [BOS, *[word] * (int(length) - 2), EOS]
                assert tokens.tolist() == inside + [PAD] * (len(tokens) - int(length))
                if word >= 1000:
                    assert length == known.lengths[word - 1000]

    def test_the_unlabelled_come_as_in_batches_of_them_alone(self):
        mixed = MixedBatches(labelled(), unlabelled(), batch_size=4, seed=3)
        alone = Batches(unlabelled(), batch_size=4, seed=3)
        for one, other in zip(mixed, alone, strict=True):
            assert [word for word in words(one) if word < 1000] == words(other)

    @given(count=st.integers(1, 12), size=st.integers(1, 9), seed=st.integers(0, 3), rest=st.data())
    def test_the_labelled_take_turns_across_epochs(self, count, size, seed, rest):
        others = unlabelled(rest.draw(st.integers(1, 9)))
        batches = MixedBatches(labelled(count), others, labelled_size=size, batch_size=2, seed=seed)
        turns = [word for _ in range(4) for batch in batches for word in with_label(batch)]
        for start in range(0, len(turns), count):
            round_ = turns[start : start + count]
            assert len(set(round_)) == len(round_)
        assert len(turns) == 4 * len(Batches(others, batch_size=2)) * size

    def test_every_round_has_an_order_of_its_own(self):
        batches = MixedBatches(labelled(12), unlabelled(12), labelled_size=12, batch_size=2)
        orders = [tuple(with_label(batch)) for _ in range(2) for batch in batches]
        assert len(orders) == len(set(orders)) == 12
        other = MixedBatches(labelled(12), unlabelled(12), labelled_size=12, batch_size=2, seed=1)
        assert tuple(with_label(next(iter(other)))) not in orders

    def test_one_seed_one_run(self):
        def run():
            batches = MixedBatches(labelled(), unlabelled(), token_budget=30, seed=2)
            return [words(batch) for _ in range(3) for batch in batches]

        assert run() == run()

    @pytest.mark.parametrize("done", [0, 2, 6, 9])
    @pytest.mark.parametrize("kinds", ["both", "labelled", "unlabelled"])
    def test_going_on_where_it_stopped(self, done, kinds):
        known = None if kinds == "unlabelled" else labelled(13)
        others = None if kinds == "labelled" else unlabelled()

        def make():
            return MixedBatches(known, others, labelled_size=3, batch_size=4, seed=1)

        def stream(batches):
            while True:
                yield from batches

        whole, first, second = make(), make(), make()
        expected = [words(batch) for batch in itertools.islice(stream(whole), 20)]
        begun = [words(batch) for batch in itertools.islice(stream(first), done)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        rest = [words(batch) for batch in itertools.islice(stream(second), 20 - done)]
        assert begun + rest == expected

    @pytest.mark.parametrize("size", [{"batch_size": 3}, {"token_budget": 20}])
    def test_processes_share_both_kinds(self, size):
        def make(rank=0, world_size=1):
            return MixedBatches(
                labelled(7), unlabelled(), labelled_size=2, rank=rank, world_size=world_size, **size
            )

        shares = [make(rank, 2) for rank in range(2)]
        turns = []
        for _ in range(3):
            drawn = [list(share) for share in shares]
            assert len(drawn[0]) == len(drawn[1])
            seen = [word for batch in itertools.chain(*drawn) for word in words(batch)]
            assert sorted(word for word in seen if word < 1000) == list(range(100, 123))
            turns += [with_label(batch) for step in zip(*drawn, strict=True) for batch in step]
        alone = make()
        expected = [with_label(batch) for _ in range(6) for batch in alone]
        assert turns == expected[: len(turns)]

    def test_a_broken_off_epoch_starts_again(self):
        batches = MixedBatches(labelled(), unlabelled(), labelled_size=3, batch_size=4)
        list(batches)
        begun = [words(batch) for batch in itertools.islice(batches, 3)]
        assert [words(batch) for batch in batches][:3] == begun

    def test_a_state_of_other_documents(self):
        state = MixedBatches(labelled(5), unlabelled(), batch_size=4).state_dict()
        for other, message in (
            (MixedBatches(labelled(6), unlabelled(), batch_size=4), "labelled_documents 6"),
            (MixedBatches(labelled(5), unlabelled(), batch_size=5), "batch_size 5"),
            (
                MixedBatches(labelled(5), unlabelled(), batch_size=4, labelled_size=2),
                "labelled_size 2",
            ),
        ):
            with pytest.raises(ValueError, match=message):
                other.load_state_dict(state)

    def test_without_labels(self):
        seen = []
        for batch in MixedBatches(None, unlabelled(), batch_size=4):
            assert (batch.labels == -1).all()
            assert batch.positions is None
            seen += words(batch)
        assert sorted(seen) == list(range(100, 123))

    def test_with_nothing_but_labels(self):
        seen = []
        for batch in MixedBatches(labelled(13), None, labelled_size=3, batch_size=4):
            assert batch.labels.tolist() == [2 * (word - 1000) for word in words(batch)]
            assert batch.positions is None
            seen += words(batch)
        assert sorted(seen) == list(range(1000, 1013))

    @pytest.mark.parametrize(
        ("known", "others", "options", "message"),
        [
            (None, None, {"batch_size": 4}, "labelled documents, unlabelled ones, or both"),
            (texts([3, 4]), unlabelled(), {"batch_size": 4}, "needs a label"),
            (texts([3, 4], labels=[0, -1]), unlabelled(), {"batch_size": 4}, "needs a label"),
            (labelled(), unlabelled(), {"batch_size": 4, "labelled_size": 0}, "at least 1, not 0"),
            (labelled(), unlabelled(), {}, "either batch_size or token_budget"),
        ],
    )
    def test_what_makes_no_sense(self, known, others, options, message):
        with pytest.raises(ValueError, match=message):
            MixedBatches(known, others, **options)


def test_they_are_shown_by_their_sizes():
    shown = repr(MixedBatches(labelled(), unlabelled(), labelled_size=3, token_budget=40))
    assert shown.startswith("MixedBatches(documents=23, tokens=")
    assert shown.endswith("labelled_documents=5, unlabelled_documents=23, labelled_size=3)")
    assert len(shown) < 200
