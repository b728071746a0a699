"""Batches of documents: what a batch holds, and which documents share one."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.corpus import Texts
from tutvae.data.tokenization import Tokenizer

BOS, EOS = 1, 2
lengths_of_documents = st.lists(st.integers(2, 40), min_size=1, max_size=60)
sizes = st.one_of(
    st.builds(lambda n: {"batch_size": n}, st.integers(1, 9)),
    st.builds(lambda n: {"token_budget": n}, st.integers(1, 150)),
)


def documents_of(lengths):
    """Distinct documents: the first word of each tells its position."""
    return [[BOS, *[10 + i] * (n - 2), EOS] for i, n in enumerate(lengths)]


def batches_of(lengths, **options):
    labels = [7 * i for i in range(len(lengths))]
    return Batches(EncodedTexts(documents_of(lengths), labels), **options)


def positions(batches):
    return [batch.positions.tolist() for batch in batches]


@pytest.fixture
def batch():
    documents = [[BOS, 5, 0, EOS], [BOS, EOS], [BOS, 6, 7, 8, EOS]]
    return EncodedTexts(documents, labels=[4, 9, 2], pad_id=0).batch()


def test_inputs_and_targets_are_shifted_by_one(batch):
    assert batch.tokens.tolist() == [[1, 5, 0, 2, 0], [1, 2, 0, 0, 0], [1, 6, 7, 8, 2]]
    assert batch.inputs.tolist() == [[1, 5, 0, 2], [1, 2, 0, 0], [1, 6, 7, 8]]
    assert batch.targets.tolist() == [[5, 0, 2, 0], [2, 0, 0, 0], [6, 7, 8, 2]]
    assert batch.tokens.dtype == torch.int64


def test_the_mask_goes_by_length_not_by_padding_id(batch):
    assert batch.mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert batch.predicted_tokens == batch.mask.sum() == 8


def test_the_words_are_where_the_mask_is(batch):
    rows, times = batch.words
    assert batch.targets[rows, times].tolist() == batch.targets[batch.mask].tolist()
    assert rows.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_labels_and_positions_go_along(batch):
    assert len(batch) == 3
    assert batch.labels.tolist() == [4, 9, 2]
    assert batch.positions.tolist() == [0, 1, 2]


def test_moving_moves_every_tensor(batch):
    moved = batch.to("meta")
    tensors = (moved.tokens, moved.lengths, moved.labels, moved.positions, moved.mask, moved.words)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.extremes == (0, 8, 2, 5)
    assert batch.words.device.type == "cpu"
    bare = TextBatch(batch.tokens, batch.lengths).to("cpu")
    assert bare.labels is bare.positions is None
    assert torch.equal(bare.tokens, batch.tokens)


@pytest.mark.parametrize("labels", [[-1, 2, -1], [3, 0, 1], [-1, -1, -1], None])
@pytest.mark.parametrize("copies", [0, 1, 2])
def test_copies_of_the_documents_without_a_label_come_behind_all(labels, copies):
    batch = EncodedTexts([[BOS, 5, 0, EOS], [BOS, EOS], [BOS, 6, 7, 8, EOS]], labels).batch()
    without = [row for row in range(3) if labels is None or labels[row] < 0]
    copied, rows = batch.with_copies(copies)
    assert rows.tolist() == [0, 1, 2, *copies * without]
    assert torch.equal(copied.tokens, batch.tokens[rows])
    assert torch.equal(copied.words, TextBatch(copied.tokens, copied.lengths).words)
    assert batch.label_extremes == ((-1, -1) if labels is None else (min(labels), max(labels)))


def test_a_batch_of_chosen_documents_in_the_chosen_order():
    chosen = EncodedTexts(documents_of([3, 6, 2, 4]), pad_id=99).batch([3, 0])
    assert chosen.tokens.tolist() == [[1, 13, 13, 2], [1, 10, 2, 99]]
    assert chosen.lengths.tolist() == [4, 3]
    assert chosen.labels is None


def test_the_last_document_is_padded_too():
    assert EncodedTexts([[1, 4, 5, 2], [1, 2]], pad_id=3).batch().tokens[1].tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize("labels", [None, [5, 6, 7]])
def test_a_part_is_the_chosen_documents_as_they_were_cut(labels):
    documents = [[1, 8, 2], [1, 4, 5, 6, 2], [1, 2]]
    with pytest.warns(UserWarning, match="1 of 3"):
        texts = EncodedTexts(documents, labels, pad_id=3, max_length=4)
    part = texts.part([1, 0])
    assert part.batch().tokens.tolist() == [[1, 4, 5, 6], [1, 8, 2, 3]]
    assert (part.labels is None) if labels is None else (part.labels.tolist() == [6, 5])


def test_long_documents_are_cut_counted_and_said():
    with pytest.warns(UserWarning, match="2 of 4 documents have more than 5 tokens.*longest 50"):
        texts = EncodedTexts(documents_of([5, 6, 2, 50]), max_length=5)
    assert texts.cut == 2
    batch = texts.batch()
    assert batch.lengths.tolist() == [5, 5, 2, 5]
    assert batch.tokens[1].tolist() == [1, 11, 11, 11, 11]
    assert batch.tokens[3].tolist() == [1, 13, 13, 13, 13]


def test_nothing_is_said_where_nothing_is_cut():
    assert EncodedTexts(documents_of([5, 2]), max_length=5).cut == 0


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        ([], {}, "no documents"),
        ([[1, 2], [1]], {}, "document 1 has 1 tokens"),
        ([[1, 2], []], {}, "document 1 has 0 tokens"),
        ([[1, 2]], {"labels": [0, 1]}, "2 labels do not go with 1 documents"),
        ([[1, 2]], {"max_length": 1}, "at least 2"),
    ],
)
def test_documents_that_cannot_make_a_batch(documents, options, message):
    with pytest.raises(ValueError, match=message):
        EncodedTexts(documents, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either batch_size or token_budget"),
        ({"batch_size": 2, "token_budget": 9}, "either batch_size or token_budget"),
        ({"batch_size": 0}, "at least 1"),
        ({"token_budget": 0}, "at least 1"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank must lie"),
        ({"batch_size": 2, "world_size": 4}, "3 documents are too few for 4"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        batches_of([3, 4, 5], **options)


@pytest.mark.parametrize("as_arrays", [True, False])
@pytest.mark.parametrize("token", [2.5, 2**31, 2**40, -1])
def test_ids_that_are_no_ids(token, as_arrays):
    documents = [[1, token, 2], [1, 2]]
    with pytest.raises(ValueError, match="token ids must be integers in 0"):
        EncodedTexts([np.array(d) for d in documents] if as_arrays else documents)


@given(lengths_of_documents, sizes, st.booleans(), st.integers(0, 5))
def test_each_document_comes_exactly_once_an_epoch(lengths, size, shuffle, seed):
    batches = batches_of(lengths, **size, shuffle=shuffle, seed=seed)
    for epoch in range(3):
        assert batches.epoch == epoch
        count = len(batches)
        drawn = positions(batches)
        assert len(drawn) == count
        assert sorted(itertools.chain(*drawn)) == list(range(len(lengths)))


@given(lengths_of_documents, sizes)
def test_a_batch_holds_its_documents_and_nothing_else(lengths, size):
    documents = documents_of(lengths)
    padded = kept = 0
    batches = batches_of(lengths, **size)
    fraction = batches.padding
    for batch in batches:
        for i, position in enumerate(batch.positions.tolist()):
            length = batch.lengths[i]
            assert batch.tokens[i, :length].tolist() == documents[position]
            assert not batch.tokens[i, length:].any()
            assert batch.labels[i] == 7 * position
        assert batch.tokens.shape == (len(batch), batch.lengths.max())
        padded += batch.tokens.numel()
        kept += int(batch.lengths.sum())
    assert fraction == pytest.approx(1 - kept / padded)


@given(lengths_of_documents, st.integers(1, 150))
def test_no_batch_exceeds_the_token_budget(lengths, budget):
    for batch in batches_of(lengths, token_budget=budget):
        assert batch.tokens.numel() <= budget or len(batch) == 1


@given(lengths_of_documents, st.integers(1, 9))
def test_batches_of_fixed_size_are_full_but_for_one(lengths, size):
    counts = sorted(len(batch) for batch in batches_of(lengths, batch_size=size))
    assert counts[1:] == [size] * (len(counts) - 1)


def test_the_budget_is_used():
    batches = batches_of([10] * 100, token_budget=50)
    assert {len(batch) for batch in batches} == {5}


@given(
    st.lists(st.integers(2, 40), min_size=5, max_size=60),
    sizes,
    st.integers(1, 5),
    st.booleans(),
)
def test_processes_share_an_epoch(lengths, size, world_size, shuffle):
    ranks = [
        batches_of(lengths, **size, shuffle=shuffle, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        drawn = [positions(batches) for batches in ranks]
        assert len({len(batches) for batches in drawn}) == 1
        everything = itertools.chain(*itertools.chain(*drawn))
        assert sorted(everything) == list(range(len(lengths)))


def test_at_each_step_processes_get_batches_of_about_equal_length():
    lengths = np.random.default_rng(0).integers(2, 200, 4000)
    ranks = [batches_of(lengths, token_budget=500, rank=r, world_size=2) for r in range(2)]
    steps = zip(*ranks, strict=True)
    ratios = [a.tokens.shape[1] / b.tokens.shape[1] for a, b in steps]
    assert max(abs(np.log(ratios))) < np.log(2)
    assert np.median(np.abs(np.log(ratios))) < 0.1


def test_one_more_process_splits_no_more_than_it_must():
    alone = positions(batches_of([9] * 30, batch_size=6, shuffle=False))
    shared = [
        positions(batches_of([9] * 30, batch_size=6, shuffle=False, rank=r, world_size=2))
        for r in range(2)
    ]
    union = sorted(itertools.chain(*shared))
    assert len(union) == 6
    assert len([batch for batch in union if batch in alone]) == 4


@given(lengths_of_documents, sizes, st.integers(0, 3), st.data())
def test_resuming_gives_the_identical_remaining_batches(lengths, size, epochs, data):
    original = batches_of(lengths, **size, seed=3)
    for _ in range(epochs):
        list(original)
    stop = data.draw(st.integers(0, len(original)))
    iterator = iter(original)
    before = [next(iterator).positions.tolist() for _ in range(stop)]
    state = json.loads(json.dumps(original.state_dict()))
    rest = positions(iterator)
    following = positions(original)

    resumed = batches_of(lengths, **size, seed=3)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert positions(resumed) == rest
    assert positions(resumed) == following
    assert sorted(itertools.chain(*before, *rest)) == list(range(len(lengths)))


def test_a_state_resumes_one_iteration_only():
    batches = batches_of(range(2, 40), batch_size=4)
    whole = positions(batches_of(range(2, 40), batch_size=4))
    batches.load_state_dict(batches.state_dict() | {"batch": 3})
    assert next(iter(batches)).positions.tolist() == whole[3]
    assert positions(batches) == whole


def test_looking_at_a_batch_uses_up_nothing():
    batches = batches_of(range(2, 40), batch_size=4)
    first = next(iter(batches)).positions.tolist()
    drawn = positions(batches)
    assert drawn[0] == first
    assert len(drawn) == 10


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"batch_size": 5}, {"shuffle": False}, {"world_size": 2}],
)
def test_a_state_of_other_settings_is_refused(change):
    state = batches_of(range(2, 40), batch_size=4).state_dict()
    with pytest.raises(ValueError, match=next(iter(change))):
        batches_of(range(2, 40), **({"batch_size": 4} | change)).load_state_dict(state)


def test_a_state_of_other_documents_is_refused():
    state = batches_of(range(2, 40), batch_size=4).state_dict()
    with pytest.raises(ValueError, match="documents"):
        batches_of(range(2, 41), batch_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match="tokens"):
        batches_of([*range(2, 39), 90], batch_size=4).load_state_dict(state)


def test_epochs_differ_in_order_and_in_company():
    batches = batches_of([10 + i % 7 for i in range(200)], batch_size=10)
    first, second = positions(batches), positions(batches)
    assert first != second
    assert len({frozenset(b) for b in first} & {frozenset(b) for b in second}) < 5


def test_the_seed_decides():
    lengths = list(range(2, 60))
    drawn = [positions(batches_of(lengths, batch_size=4, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_short_and_long_batches_come_mixed():
    lengths = [batch.tokens.shape[1] for batch in batches_of(range(2, 202), batch_size=4)]
    assert np.corrcoef(lengths, range(len(lengths)))[0, 1] < 0.5


def test_without_shuffling_batches_go_from_short_to_long_every_time():
    batches = batches_of([5, 3, 9, 3, 4], batch_size=2, shuffle=False)
    assert positions(batches) == positions(batches) == [[1, 3], [4, 0], [2]]


def test_results_come_back_in_the_callers_order():
    lengths = np.random.default_rng(1).integers(2, 30, 50).tolist()
    results = torch.zeros(50, dtype=torch.int64)
    for batch in batches_of(lengths, token_budget=100, shuffle=False):
        results[batch.positions] = batch.lengths
    assert results.tolist() == lengths


def test_from_texts_with_labels_and_an_empty_document():
    texts = Texts(["a b c", "", "a"], labels=[2, 0, 1])
    tokenizer = Tokenizer.train(texts.texts)
    (batch,) = Batches.from_texts(texts, tokenizer, batch_size=3, shuffle=False)
    assert batch.lengths.tolist() == [2, 3, 5]
    assert batch.labels.tolist() == [0, 1, 2]
    assert batch.tokens[0].tolist() == [1, 2, 0, 0, 0]
    assert batch.predicted_tokens == 7
    (plain,) = Batches.from_texts(["a b", "c"], tokenizer, batch_size=2)
    assert plain.labels is None


def test_batches_of_texts_know_their_tokenizer():
    tokenizer = Tokenizer.train(["a b"])
    assert Batches.from_texts(["a"], tokenizer, batch_size=1).tokenizer is tokenizer
    assert Batches(EncodedTexts([[1, 4, 2]]), batch_size=1).tokenizer is None


def test_from_texts_pads_with_the_tokenizers_mark_and_cuts():
    class Vocabulary:
        itos = ("a", "<bos>", "<eos>", "<unk>", "<pad>")

    tokenizer = Tokenizer.from_torchtext(Vocabulary())
    with pytest.warns(UserWarning, match="1 of 2"):
        batches = Batches.from_texts(["a", "a a a a"], tokenizer, max_length=4, batch_size=2)
    (batch,) = batches
    assert sorted(batch.tokens.tolist()) == [[1, 0, 0, 0], [1, 0, 2, 4]]


def test_no_documents_is_an_error():
    with pytest.raises(ValueError, match="no documents"):
        Batches.from_texts([], Tokenizer.train(["a"]), batch_size=2)


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    "size", [{"batch_size": 32}, {"token_budget": 1000}, {"token_budget": 4000}]
)
def test_padding_on_the_penn_treebank_is_below_five_per_cent(size):
    from tutvae.data.corpora import ptb

    train = ptb().train
    batches = Batches.from_texts(train, Tokenizer.train(train.texts), **size)
    assert 0.01 < batches.padding < 0.05
    targets = counted = 0
    for batch in batches:
        targets += batch.targets.numel()
        counted += batch.predicted_tokens
    assert counted == 929_589
    assert 1 - counted / targets < 0.05


def test_they_are_shown_by_their_sizes():
    documents = EncodedTexts([[1, 5, 2], [1, 2]], [0, 1])
    assert repr(documents) == "EncodedTexts(N=2, tokens=5, with labels)"
    assert repr(documents.batch()) == "TextBatch(B=2, T=3, with labels)"
    assert repr(EncodedTexts([[1, 2]]).batch([0])) == "TextBatch(B=1, T=2)"
    assert repr(Batches(documents, batch_size=2)) == (
        "Batches(documents=2, tokens=5, batch_size=2, shuffle=True, seed=0, world_size=1)"
    )
