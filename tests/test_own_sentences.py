"""The models that come with the package, asked with sentences that they were not trained on."""

import re
from collections import Counter

import pytest

import tutvae
from tutvae import TrainedModel

SENTENCES = """
The bus was late again this morning.
My sister plays the violin.
Can you lend me ten dollars?
I forgot my umbrella at the office.
We should leave before it gets dark.
He never answers his phone.
What did you have for breakfast?
The curry is far too spicy.
They moved to Canada last year.
Please shut the kitchen drawer.
I would like a slice of melon.
She has already read that book.
Why is the baby crying?
Our neighbors are very quiet.
The meeting starts at nine.
I can't find my keys.
Do you want to go for a walk?
The children are playing in the garden.
It rained all night.
You look tired today.
His father is a dentist.
I bought these shoes yesterday.
Nobody told me about the party.
Is there a pharmacy near here?
The train leaves in five minutes.
We had dinner at a small restaurant.
She speaks three languages.
Don't forget to call your mother.
The movie was boring.
I think you are right.
How much does that lamp cost?
He broke his leg while skiing.
My computer is very slow.
They are waiting for us.
I am learning to cook.
The garage was locked.
Where did you buy that scarf?
Her hair is long and black.
We need four more chairs.
He works at night.
This tea is cold.
Can I sit beside the driver?
The dog barked at the mailman.
I have been to Paris twice.
She wants to be a pilot.
There is milk in the fridge.
You should see a dentist soon.
Tom is afraid of spiders.
I don't understand the question.
Let's meet at the library.
""".strip().splitlines()
UNUSUAL = {
    "upper case": "WHERE IS THE STATION?",
    "accents": "Où est la bibliothèque, s'il vous plaît ?",
    "emoji": "I love you 😀🎉",
    "another script": "駅はどこですか。",
    "a number": "He paid 1,234,567 dollars.",
    "one letter": "a",
    "line break": "Come here.\nNow.",
}


@pytest.fixture(scope="module", params=["sentences-8", "sentences-24"])
def trained(request: pytest.FixtureRequest) -> TrainedModel:
    return tutvae.load(request.param)


def share_kept(texts: list[str], back: list[str]) -> float:
    """The share of all words of texts that come back, in any order."""
    counts = [
        [Counter(re.findall(r"[\w']+", text.lower())) for text in pair]
        for pair in zip(texts, back, strict=True)
    ]
    return sum((a & b).total() for a, b in counts) / sum(a.total() for a, _ in counts)


def test_no_word_is_unknown(trained: TrainedModel) -> None:
    texts = [*SENTENCES, *UNUSUAL.values()]
    assert not any(trained.tokenizer_.unk_id in ids for ids in trained.tokenizer_.encode(texts))


def test_own_sentences_come_back_as_text(trained: TrainedModel) -> None:
    back = trained.reconstruct(SENTENCES)
    assert all(re.search("[a-z]{2}", text) for text in back)
    assert not any(re.search(r"<\w+>|\ufffd", text) for text in back)
    assert len(set(back)) > 40, "different sentences have different codes"


def test_questions_come_back_as_questions(trained: TrainedModel) -> None:
    back = trained.reconstruct(SENTENCES)
    agree = sum(a.endswith("?") == b.endswith("?") for a, b in zip(SENTENCES, back, strict=True))
    assert agree >= 47


def test_more_nats_keep_more_words() -> None:
    """Measured: 0.54 of the words with 8 nats, 0.84 with 24; of the next sentence 0.03."""
    few, many = (
        share_kept(SENTENCES, tutvae.load(name).reconstruct(SENTENCES))
        for name in ("sentences-8", "sentences-24")
    )
    assert few > 0.4
    assert many > few + 0.15


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_input_gets_a_text(trained: TrainedModel, kind: str) -> None:
    (back,) = trained.reconstruct([UNUSUAL[kind]])
    assert re.search("[a-z]", back)
    assert not re.search(r"<\w+>|\ufffd", back)


def test_a_long_sentence_is_cut_with_a_warning(trained: TrainedModel) -> None:
    with pytest.warns(UserWarning, match="more than 42 tokens"):
        (back,) = trained.reconstruct([" ".join(12 * ["and then we walked along the river"])])
    assert re.search("[a-z]", back)


def test_capitals_change_nothing(trained: TrainedModel) -> None:
    assert trained.reconstruct([UNUSUAL["upper case"]]) == trained.reconstruct(
        [UNUSUAL["upper case"].lower()]
    )


def test_what_is_no_sentence_is_one_clear_error(trained: TrainedModel) -> None:
    with pytest.raises(ValueError, match="give at least one"):
        trained.reconstruct([])
    with pytest.raises(TypeError, match="string"):
        trained.reconstruct([None])


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_sentence_gets_a_text(trained: TrainedModel, text: str) -> None:
    assert isinstance(trained.reconstruct([text])[0], str)
