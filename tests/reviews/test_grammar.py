import re
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutvae.reviews.grammar import FACTORS, ReviewGrammar, Reviews
from tutvae.reviews.words import (
    CATEGORIES,
    FOLLOW_UPS,
    OPENINGS,
    PERSONS,
    SLOTS,
    TENSES,
    inflect,
)

# Of tests that run the same few lines very often: to count them there would double the time.
uncounted = pytest.mark.no_cover

SHAPE = (5, 5, 4, 2)

SINGLE_WORDS = {"nouns": 1, "verbs": 1, "adjectives": 1, "fillers": 1}
# Small enough to write down every document; the second one is long enough to use up its
# follow-up templates.
TINY = [
    ReviewGrammar((1, 2), openings=2, follow_ups=2, vagueness=0.2, star_noise=0.3, **SINGLE_WORDS),
    ReviewGrammar((1, 3), openings=1, follow_ups=2, vagueness=0.0, star_noise=0.1, **SINGLE_WORDS),
    ReviewGrammar((1, 2), openings=2, follow_ups=2, persons=3, tenses=1, **SINGLE_WORDS),
]
LARGEST = ReviewGrammar((1, 17), nouns=40, verbs=4, adjectives=12, fillers=8)
PAIR = ReviewGrammar((1, 2))


def words_of(grammar, slot, category, stars, person, tense):
    """p(word | factors) of a slot, straight from its lists."""
    neighbours = dict.fromkeys(range(5), 0.0)
    near = [level for level in (stars - 1, stars + 1) if level in neighbours]
    neighbours[stars] = 1 - grammar.star_noise
    neighbours |= {level: grammar.star_noise / len(near) for level in near}
    weights = {
        "category": {category: 1 - grammar.vagueness, 5: grammar.vagueness},
        "stars": neighbours,
        "neither": {0: 1.0},
    }[slot.chooser]
    result = {}
    for number, weight in weights.items():
        entries = slot.lists[number][: getattr(grammar, slot.size)]
        for entry in entries:
            word = inflect(entry, slot.inflection, person, tense)
            result[word] = result.get(word, 0) + weight / len(entries)
    return {word: probability for word, probability in result.items() if probability > 0}


def sentences_of(grammar, template, state):
    """All sentences of a template with their probabilities."""
    choices = [
        words_of(grammar, SLOTS[token[1:-1]], *state) if token[0] == "{" else {token: 1.0}
        for token in template.split()
    ]
    return [
        (" ".join(word for word, _ in pairs), np.prod([probability for _, probability in pairs]))
        for pairs in product(*(choice.items() for choice in choices))
    ]


def enumerate_documents(grammar):
    """Every document with its joint probability with the factors, `[5, 5, persons, tenses]`."""
    shape = (5, 5, grammar.persons, grammar.tenses)
    least, most = grammar.sentences
    plans = [
        (opening, *rest)
        for length in range(least, most + 1)
        for opening in OPENINGS[: grammar.openings]
        for rest in permutations(FOLLOW_UPS[: grammar.follow_ups], length - 1)
    ]
    plans_of_length = {n: sum(len(plan) == n for plan in plans) for n in range(least, most + 1)}
    joint = {}
    for state in np.ndindex(shape):
        options = {t: sentences_of(grammar, t, state) for plan in plans for t in plan}
        for plan in plans:
            weight = 1 / (np.prod(shape) * (most - least + 1) * plans_of_length[len(plan)])
            for sentences in product(*(options[template] for template in plan)):
                document = " ".join(text for text, _ in sentences)
                table = joint.setdefault(document, np.zeros(shape))
                table[state] += weight * np.prod([probability for _, probability in sentences])
    return joint


@pytest.fixture(scope="module", params=range(len(TINY)))
def tiny(request):
    """A grammar, its documents and their joint probabilities `[N, 5, 5, persons, tenses]`."""
    joint = enumerate_documents(TINY[request.param])
    return TINY[request.param], list(joint), np.stack(list(joint.values()))


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def assert_estimates(estimate, expected, factor=4.0):
    assert abs(estimate.value - expected) <= factor * estimate.standard_error + 1e-9


@uncounted
def test_enumerated_probabilities_sum_to_one_and_agree(tiny):
    grammar, documents, joint = tiny
    probabilities = np.exp(grammar.log_probs(documents))
    assert probabilities.sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(probabilities, joint.sum((1, 2, 3, 4)), rtol=1e-10)


@uncounted
def test_sampling_frequencies_agree_with_log_prob(tiny):
    grammar, documents, _ = tiny
    count = 40_000
    texts, frequencies = np.unique(grammar.sample(count, seed=3).texts, return_counts=True)
    assert set(texts) <= set(documents)
    observed = dict(zip(texts.tolist(), frequencies.tolist(), strict=True))
    expected = count * np.exp(grammar.log_probs(documents))
    common = expected > 5
    seen = np.array([observed.get(document, 0) for document in documents])
    chi_square = ((seen - expected)[common] ** 2 / expected[common]).sum()
    freedom = common.sum() - 1
    assert freedom > 100
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


@uncounted
def test_posterior_is_bayes_by_enumeration(tiny):
    grammar, documents, joint = tiny
    joint = joint.sum((3, 4))
    expected = joint / joint.sum((1, 2), keepdims=True)
    posteriors = grammar.posteriors(documents)
    np.testing.assert_allclose(posteriors, expected, atol=1e-10)
    np.testing.assert_allclose(posteriors.sum((1, 2)), 1)
    np.testing.assert_array_equal(grammar.posterior(documents[7]), posteriors[7])


def test_entropy_and_mutual_information_by_enumeration(tiny):
    grammar, _, joint = tiny
    whole = entropy(joint.sum((1, 2, 3, 4)))
    assert_estimates(grammar.entropy(), whole)
    for names in [("category",), ("stars",), ("person",), ("tense",), ("stars", "tense")]:
        kept = joint.sum(tuple(1 + i for i, name in enumerate(FACTORS) if name not in names))
        expected = whole + grammar.factor_entropy(*names) - entropy(kept)
        assert_estimates(grammar.mutual_information(*names), expected)


@pytest.mark.parametrize("label", ["category", "stars", "joint"])
@pytest.mark.parametrize("label_noise", [0.0, 0.25])
def test_bayes_accuracy_by_enumeration(tiny, label, label_noise):
    grammar, _, joint = tiny
    noisy = ReviewGrammar(**{**vars_of(grammar), "label_noise": label_noise})
    joint = joint.sum((3, 4))
    if label != "joint":
        joint = joint.sum(2 if label == "category" else 1)
    joint = joint.reshape(len(joint), -1)
    K = joint.shape[1]
    channel = np.full((K, K), label_noise / (K - 1))
    np.fill_diagonal(channel, 1 - label_noise)
    assert_estimates(noisy.bayes_accuracy(label), (joint @ channel).max(1).sum())


def vars_of(grammar):
    return {name: getattr(grammar, name) for name in grammar.__dataclass_fields__}


@uncounted
@pytest.mark.parametrize("sentences", [(1, 1), (4, 10)])
def test_entropy_is_minus_the_mean_log_prob(sentences):
    grammar = ReviewGrammar(sentences)
    surprisal = -grammar.log_probs(grammar.sample(6_000, seed=11).texts)
    error = surprisal.std() / np.sqrt(len(surprisal))
    estimate = grammar.entropy()
    assert abs(surprisal.mean() - estimate.value) < 4 * error
    assert estimate.standard_error < 0.001 * estimate.value


REVIEW = "we loved this hotel because the bed was really superb ."
FOLLOW_UP = "as for the room , we loved it from the start ."


@pytest.mark.parametrize("document", [REVIEW, f"{REVIEW} {FOLLOW_UP}"])
def test_a_review_of_the_grammar(document):
    assert np.isfinite(PAIR.log_prob(document))
    category, stars = np.unravel_index(PAIR.posterior(document).argmax(), (5, 5))
    assert (CATEGORIES[category], stars + 1) == ("hotel", 5)


@pytest.mark.parametrize(
    "document",
    [
        "",
        " ",
        ".",
        ". .",
        REVIEW.replace("bed", "spaceship"),
        REVIEW.replace("bed", "<unk>"),
        REVIEW.replace("we", "We"),
        REVIEW.replace("the bed", "the  bed"),
        REVIEW.replace("the bed", "the\tbed"),
        REVIEW.replace("the bed", "the . bed"),
        REVIEW.replace("loved", "love"),
        REVIEW.replace("we loved", "mum love"),
        REVIEW.replace("bed", "lasagne"),  # a hotel has no lasagne
        REVIEW.replace("superb", "awful"),  # love and awful are four stars apart
        REVIEW.removesuffix(" ."),
        REVIEW.removesuffix(" superb ."),
        REVIEW.removesuffix(" superb .") + " .",
        f" {REVIEW}",
        f"{REVIEW} ",
        f"{REVIEW}\n",
        f"{REVIEW} the",
        f"{REVIEW} {REVIEW}",
        FOLLOW_UP,
        f"{FOLLOW_UP} {REVIEW}",
        f"{REVIEW} {FOLLOW_UP.replace('we', 'i')}",
        f"{REVIEW} {FOLLOW_UP} the bed was really superb .",
    ],
)
def test_outside_the_grammar(document):
    assert PAIR.log_prob(document) == -np.inf
    assert np.isnan(PAIR.posteriors([document])).all()
    with pytest.raises(ValueError, match="cannot write"):
        PAIR.posterior(document)


@pytest.mark.parametrize(
    ("person", "verb", "be", "possible"),
    [
        ("we", "love", "is", True),
        ("friends", "love", "is", True),
        ("mum", "loves", "is", True),
        ("mum", "loved", "was", True),
        ("mum", "love", "is", False),
        ("we", "loves", "is", False),
        ("mum", "loves", "was", False),
        ("we", "loved", "is", False),
    ],
)
def test_person_and_tense_agree_across_the_sentence(person, verb, be, possible):
    document = f"{person} {verb} this hotel because the bed {be} really superb ."
    assert np.isfinite(PAIR.log_prob(document)) == possible


def test_a_template_comes_once_in_a_document():
    grammar = ReviewGrammar((3, 3))
    other = "the room was truly superb ."
    assert np.isfinite(grammar.log_prob(f"{REVIEW} {FOLLOW_UP} {other}"))
    assert grammar.log_prob(f"{REVIEW} {FOLLOW_UP} {FOLLOW_UP}") == -np.inf
    again = FOLLOW_UP.replace("room", "bed")
    assert grammar.log_prob(f"{REVIEW} {FOLLOW_UP} {again}") == -np.inf


def test_too_few_sentences():
    assert ReviewGrammar((2, 3)).log_prob(REVIEW) == -np.inf


def test_a_mixed_batch_keeps_its_order():
    good = PAIR.sample(4_500, seed=2).texts  # more than one chunk
    mixed = [text for document in good for text in (document, "nonsense .")]
    log_probs = PAIR.log_probs(mixed)
    np.testing.assert_array_equal(log_probs[1::2], -np.inf)
    some = range(0, len(good), 150)
    alone = [PAIR.log_prob(good[i]) for i in some]
    np.testing.assert_allclose([log_probs[2 * i] for i in some], alone)
    assert PAIR.log_probs([]).shape == (0,)


def test_no_two_templates_share_a_sentence():
    # The likelihood relies on it. Smaller vocabularies are subsets of this one.
    def words(token):
        if token[0] != "{":
            return {token}
        states = np.ndindex(SHAPE)
        return {word for s in states for word in words_of(LARGEST, SLOTS[token[1:-1]], *s)}

    vocabulary = {token: words(token) for text in OPENINGS + FOLLOW_UPS for token in text.split()}
    for templates in (OPENINGS, FOLLOW_UPS):
        for one, other in combinations([text.split() for text in templates], 2):
            assert len(one) != len(other) or any(
                vocabulary[a].isdisjoint(vocabulary[b]) for a, b in zip(one, other, strict=True)
            ), (one, other)


def test_factors_that_are_fixed_leave_the_documents():
    fixed = ReviewGrammar((2, 3), persons=1, tenses=1)
    documents = fixed.sample(200, seed=1)
    assert set(documents.factors["person"]) == set(documents.factors["tense"]) == {0}
    assert {"mum", "friends"} <= set(PAIR.vocabulary) - set(fixed.vocabulary)
    assert fixed.factor_entropy("person", "tense") == 0
    assert fixed.posteriors(documents.texts).shape == (200, 5, 5)
    free = ReviewGrammar((2, 3)).sample(200, seed=1)
    assert any(fixed.log_prob(document) == -np.inf for document in free.texts)


def test_templates_are_well_formed():
    for text in OPENINGS + FOLLOW_UPS:
        tokens = text.split()
        assert tokens.index(".") == len(tokens) - 1
        assert all(token[1:-1] in SLOTS for token in tokens if token[0] == "{")
    assert len({token for text in OPENINGS + FOLLOW_UPS for token in text.split()}) > len(SLOTS)


def test_lists_hold_no_entry_twice():
    for slot in SLOTS.values():
        for entries in slot.lists:
            assert len(set(entries)) == len(entries)
            assert len({entry.count("/") for entry in entries}) == 1


def test_seeds():
    grammar = ReviewGrammar((1, 4))
    first, again, other = (grammar.sample(50, seed) for seed in (5, 5, 6))
    assert first.texts == again.texts
    assert first.texts != other.texts
    assert grammar.sample(50, 5, label="joint").texts == first.texts


def test_corpus_parts_do_not_depend_on_each_other():
    small = PAIR.corpus(30, 20, 10, seed=4, label="stars")
    large = PAIR.corpus(300, 0, 10, seed=4, label="stars")
    assert [len(small.train), len(small.valid), len(small.test)] == [30, 20, 10]
    assert small.test.texts == large.test.texts
    parts = PAIR.corpus(20, 20, 20)
    assert parts.train.texts != parts.valid.texts
    assert PAIR.sample(20, seed=0).texts != parts.train.texts
    assert (
        len({tuple(part.factors["person"]) for part in (parts.train, parts.valid, parts.test)}) == 3
    )
    assert small.train.labels == small.train.factors["stars"].tolist()
    assert small.train.label_names == ("1", "2", "3", "4", "5")


def test_joint_labels_are_named():
    reviews = PAIR.sample(40, 0, "joint")
    names = [reviews.label_names[label] for label in reviews.labels]
    factors = zip(reviews.factors["category"], reviews.factors["stars"], strict=True)
    assert names == [f"{CATEGORIES[category]} {stars + 1}" for category, stars in factors]


@pytest.mark.parametrize(("label", "classes"), [("category", 5), ("stars", 5), ("joint", 25)])
def test_label_noise_replaces_the_label_by_any_other(label, classes):
    noisy = ReviewGrammar(label_noise=0.3).sample(8_000, 1, label)
    true = np.array(ReviewGrammar().sample(8_000, 1, label).labels)
    labels = np.array(noisy.labels)
    assert np.mean(labels != true) == pytest.approx(0.3, abs=0.02)
    shifts = np.bincount((labels - true) % classes, minlength=classes)[1:]
    assert (shifts > 0).all()
    assert shifts.max() < 2 * shifts.min()


@pytest.mark.parametrize("label", ["category", "stars", "joint"])
def test_the_bayes_classifier_scores_its_accuracy(label):
    grammar = ReviewGrammar(star_noise=0.3, vagueness=0.4, label_noise=0.2)
    reviews = grammar.sample(8_000, 21, label)
    posterior = grammar.posteriors(reviews.texts)
    axes = {"category": (2,), "stars": (1,), "joint": ()}[label]
    guesses = posterior.sum(axes).reshape(8_000, -1).argmax(1)
    accuracy = np.mean(guesses == reviews.labels)
    expected, error = grammar.bayes_accuracy(label)
    assert abs(accuracy - expected) < 4 * np.hypot(error, np.sqrt(expected * (1 - expected) / 8e3))


@uncounted
def test_noise_blurs_and_length_sharpens():
    noisy, clean = ReviewGrammar(star_noise=0.4), ReviewGrammar(star_noise=0.0)
    long = ReviewGrammar((4, 6), star_noise=0.4)
    information = [g.mutual_information("stars").value for g in (noisy, clean, long)]
    accuracy = [g.bayes_accuracy("stars").value for g in (noisy, clean, long)]
    assert information[0] < information[1] - 0.3
    assert accuracy[0] < accuracy[1] - 0.1
    assert information[0] < information[2] - 0.3
    assert accuracy[0] < accuracy[2] - 0.1
    vague = ReviewGrammar(vagueness=1.0)
    assert vague.mutual_information("category").value == pytest.approx(0, abs=1e-9)
    assert vague.bayes_accuracy("category").value == pytest.approx(0.2)


def test_mutual_information_is_bounded_and_the_visible_is_exact():
    grammar = ReviewGrammar((1, 3))
    for name in (*FACTORS, "opening", "sentences"):
        assert -1e-9 < grammar.mutual_information(name).value <= grammar.factor_entropy(name) + 1e-9
    assert grammar.mutual_information("opening").value == pytest.approx(np.log(8))
    assert grammar.mutual_information("sentences").value == pytest.approx(np.log(3))
    assert grammar.mutual_information("person").value == pytest.approx(np.log(4))
    assert grammar.factor_entropy("category", "tense") == pytest.approx(np.log(10))
    both = grammar.mutual_information("category", "stars").value
    assert both > grammar.mutual_information("category").value + 1


NAMES = {"nouns": 40, "verbs": 4, "adjectives": 12, "fillers": 8, "openings": 8, "follow_ups": 16}
NAMES |= {"persons": 4, "tenses": 2}


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.fixed_dictionaries({name: st.integers(1, most) for name, most in NAMES.items()}),
    noise=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 2),
    lengths=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    seed=st.integers(0, 2**32),
)
def test_every_sampled_document_is_possible_and_true(sizes, noise, lengths, seed):
    least, most = sorted(min(length, sizes["follow_ups"] + 1) for length in lengths)
    grammar = ReviewGrammar((least, most), **sizes, vagueness=noise[0], star_noise=noise[1])
    reviews = grammar.sample(40, seed)
    assert len(reviews) == 40
    assert np.isfinite(grammar.log_probs(reviews.texts)).all()
    assert {word for text in reviews.texts for word in text.split(" ")} <= set(grammar.vocabulary)
    posteriors = grammar.posteriors(reviews.texts)
    factors = reviews.factors
    assert (posteriors[np.arange(40), factors["category"], factors["stars"]] > 0).all()
    assert factors["sentences"].tolist() == [text.count(" .") for text in reviews.texts]
    assert least <= factors["sentences"].min() <= factors["sentences"].max() <= most


def test_factors_match_the_texts():
    grammar = ReviewGrammar((1, 5), vagueness=0.0, star_noise=0.0)
    reviews = grammar.sample(600, seed=8)
    pasts = {"was", "last", "told", "thought", "expected", "found"}
    presents = {"is", "every", "think", "thinks", "expect", "expects", "find"}
    for i, text in enumerate(reviews.texts):
        words = set(text.split())
        truth = {name: int(values[i]) for name, values in reviews.factors.items()}
        opening = text[: text.index(" .")].split()
        assert [person for person in PERSONS if person in opening] == [PERSONS[truth["person"]]]
        assert not words & (presents if TENSES[truth["tense"]] == "past" else pasts)
        literals = set(re.findall(r"(?<!{)\b[a-z]+\b(?!})", OPENINGS[truth["opening"]]))
        assert literals <= set(opening)
        for name, factor in (("good", "stars"), ("treat", "stars"), ("role", "category")):
            lists = SLOTS[name].lists
            used = words & {word for entries in lists for word in entries}
            assert used <= set(lists[truth[factor]])


def test_english():
    texts = LARGEST.sample(3_000, seed=0).texts
    assert not [text for text in texts if re.search(r"\ba [aeiou]|\ban\b", text)]
    forms = {"i": "my", "we": "our", "mum": "her", "friends": "their"}
    others = {person: set(forms.values()) - {form} for person, form in forms.items()}
    for text in texts:
        words = text.split()
        person = next(word for word in words if word in forms)
        assert not others[person] & set(words)
    assert re.fullmatch(r"[a-z,. ]+", "".join(texts))


def test_an_empty_sample():
    reviews = PAIR.sample(0, seed=0)
    assert isinstance(reviews, Reviews)
    assert len(reviews) == 0
    assert reviews.labels == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nouns": 0}, "nouns must be 1 to 40, not 0"),
        ({"nouns": 41}, "nouns must be 1 to 40, not 41"),
        ({"verbs": 5}, "verbs must be 1 to 4"),
        ({"adjectives": 13}, "adjectives must be 1 to 12"),
        ({"fillers": -1}, "fillers must be 1 to 8"),
        ({"openings": 0}, "openings must be 1 to 8"),
        ({"follow_ups": 17}, "follow_ups must be 1 to 16"),
        ({"vagueness": 1.5}, "vagueness must be a probability, not 1.5"),
        ({"star_noise": -0.1}, "star_noise must be a probability"),
        ({"label_noise": float("nan")}, "label_noise must be a probability"),
        ({"sentences": (0, 2)}, "sentences must be"),
        ({"sentences": (3, 2)}, "sentences must be"),
        ({"sentences": (1, 5), "follow_ups": 3}, r"follow_ups \+ 1 = 4"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReviewGrammar(**arguments)


def test_bad_arguments():
    with pytest.raises(ValueError, match="count must not be negative"):
        PAIR.sample(-1, seed=0)
    with pytest.raises(ValueError, match="label must be one of category, stars, joint"):
        PAIR.sample(3, seed=0, label="mood")
    with pytest.raises(ValueError, match="label must be one of"):
        PAIR.bayes_accuracy("person")
    with pytest.raises(ValueError, match="factors must be from category"):
        PAIR.mutual_information("mood")
    with pytest.raises(ValueError, match="factors must be from category"):
        PAIR.factor_entropy()
