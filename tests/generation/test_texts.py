from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tutvae.data.batches.text import EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.diagnostics import sample_codes
from tutvae.evaluation.report import encode
from tutvae.generation.texts import (
    decode_codes,
    impute,
    interpolate,
    interpolate_texts,
    reconstruct,
    sample_prior,
    sample_texts,
)
from tutvae.models import (
    VAE,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextVAE,
)

TOKENIZER = Tokenizer.train(["the the the the film film film was was dull"])
WORDS = ["the", "film", "was", "dull"]
V, E, H, Z = 8, 5, 6, 3
TEXTS = ["the film was dull", "", "dull dull", "was the film the film was dull the", "film"]


def vae(seed: int = 0, vocabulary_size: int = V) -> TextVAE:
    """A VAE of random weights, large enough that texts and codes matter."""
    torch.manual_seed(seed)
    sizes = (vocabulary_size, E, H, Z)
    model = TextVAE(LSTMEncoder(*sizes), LSTMDecoder(*sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def language_model(seed: int = 0, vocabulary_size: int = V) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(LSTMDecoder(vocabulary_size, E, H))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def log_likelihood(model: Any, texts: list[str], z: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model.log_likelihood(EncodedTexts(TOKENIZER.encode(texts)).batch(), z)


def means(model: TextVAE, texts: list[str]) -> Tensor:
    return encode(model, [EncodedTexts(TOKENIZER.encode(texts)).batch()]).loc


def fillings(text: str) -> list[str]:
    """Every way to fill a text's blanks."""
    choices = [WORDS if word == "_" else [word] for word in text.split()]
    return [" ".join(words) for words in itertools.product(*choices)]


class TestSamplePrior:
    def test_it_is_the_prior(self) -> None:
        z = sample_prior(VAE(7, Z, (6,)), 20_000)
        assert z.shape == (20_000, Z)
        torch.testing.assert_close(z.mean(0), torch.zeros(Z), atol=0.03, rtol=0)
        torch.testing.assert_close(z.T.cov(), torch.eye(Z), atol=0.03, rtol=0)

    def test_the_seed_alone_decides(self) -> None:
        model = VAE(7, Z, (6,))
        before = torch.get_rng_state()
        assert torch.equal(sample_prior(model, 4, seed=1), sample_prior(model, 4, seed=1))
        assert not torch.equal(sample_prior(model, 4, seed=1), sample_prior(model, 4, seed=2))
        assert torch.equal(torch.get_rng_state(), before)


def test_codes_of_the_prior_and_of_posteriors_have_other_noise() -> None:
    posterior = Normal(torch.zeros(20, Z), torch.ones(20, Z))
    assert not torch.isclose(sample_codes(posterior, 0), sample_prior(vae(), 20, 0)).any()


class TestInterpolate:
    def test_by_hand(self) -> None:
        left, right = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 0.0])
        path = interpolate(left, right, torch.tensor([1.0, 0.25, 0.0]))
        assert path.tolist() == [[1.0, 2.0], [4.0, 0.5], [5.0, 0.0]]

    def test_codes_of_two_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"\[2\] and \[3\]"):
            interpolate(torch.zeros(2), torch.zeros(3), torch.ones(1))


@pytest.mark.parametrize("make", [vae, language_model])
class TestSampleTexts:
    def test_as_many_as_asked_for(self, make: Any) -> None:
        for count in (1, 7):
            texts = sample_texts(make(), TOKENIZER, count, max_length=6)
            assert len(texts) == count
            assert all(set(text.split()) <= {*WORDS, "<unk>"} for text in texts)
            assert max(len(text.split()) for text in texts) <= 6

    def test_the_seed_alone_decides(self, make: Any) -> None:
        model = make()
        before = torch.get_rng_state()
        one = sample_texts(model, TOKENIZER, 20, seed=1, max_length=6)
        assert sample_texts(model, TOKENIZER, 20, seed=1, max_length=6) == one
        assert sample_texts(model, TOKENIZER, 20, seed=2, max_length=6) != one
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_strategy_is_passed_on(self, make: Any) -> None:
        model = make()
        greedy, top_1, nucleus, plain = (
            sample_texts(model, TOKENIZER, 20, max_length=6, **options)
            for options in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {})
        )
        assert greedy == top_1 == nucleus != plain


def test_samples_of_a_vae_are_decoded_samples_of_its_prior() -> None:
    model = vae()
    z = sample_prior(model, 9, seed=4)
    greedy = sample_texts(model, TOKENIZER, 9, temperature=0.0, max_length=6, seed=4)
    assert greedy == decode_codes(model, TOKENIZER, z, max_length=6)
    assert len(set(greedy)) > 1


def test_words_have_other_noise_than_their_codes() -> None:
    """Where the decoder ignores the code, no word goes with any of its dimensions."""
    torch.manual_seed(0)
    model = TextVAE(LSTMEncoder(V, E, H, 6), LSTMDecoder(V, E, H, 6))
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    first, codes = [], []
    for seed in range(500):
        first += sample_texts(model, TOKENIZER, 1, max_length=1, seed=seed)
        codes += sample_prior(model, 1, seed=seed)
    z = torch.stack(codes)
    for word in ["", "<unk>", *WORDS]:
        chosen = torch.tensor([word == other for other in first])
        assert (z[chosen].mean(0) - z.mean(0)).abs().max() < 0.4


class TestReconstruct:
    def test_the_posterior_mean_is_decoded_greedily(self) -> None:
        model = vae()
        expected = decode_codes(model, TOKENIZER, means(model, TEXTS), max_length=9)
        assert reconstruct(model, TOKENIZER, TEXTS, max_length=9) == expected
        assert len(set(expected)) > 1

    def test_texts_keep_their_order_and_do_not_depend_on_each_other(self) -> None:
        model = vae()
        alone = [reconstruct(model, TOKENIZER, [text], max_length=9)[0] for text in TEXTS]
        assert reconstruct(model, TOKENIZER, TEXTS, max_length=9) == alone
        assert reconstruct(model, TOKENIZER, TEXTS[::-1], max_length=9) == alone[::-1]

    def test_samples_of_the_posterior(self) -> None:
        model = vae()
        samples = {
            tuple(reconstruct(model, TOKENIZER, TEXTS, sampled=True, seed=seed, max_length=9))
            for seed in range(12)
        }
        assert len(samples) > 1

    def test_the_seed_alone_decides(self) -> None:
        model = vae()
        before = torch.get_rng_state()
        first, second = (
            reconstruct(model, TOKENIZER, TEXTS, sampled=True, seed=3, max_length=9) for _ in "12"
        )
        assert first == second
        assert torch.equal(torch.get_rng_state(), before)

    def test_no_texts(self) -> None:
        assert reconstruct(vae(), TOKENIZER, []) == []

    def test_an_unknown_word_is_the_unknown_mark(self) -> None:
        model = vae()
        got = reconstruct(model, TOKENIZER, ["the zebra was dull"], max_length=9)
        assert got == reconstruct(model, TOKENIZER, ["the <unk> was dull"], max_length=9)

    def test_dropout_is_off_and_the_mode_comes_back(self) -> None:
        torch.manual_seed(0)
        decoder = LSTMDecoder(V, E, H, Z, word_dropout=0.5, dropout=0.5)
        model = TextVAE(LSTMEncoder(V, E, H, Z), decoder).train()
        first, second = (reconstruct(model, TOKENIZER, TEXTS, max_length=9) for _ in "12")
        assert first == second
        assert model.training
        assert model.decoder.training

    @pytest.mark.parametrize("part", ["encoder", "decoder"])
    def test_weights_that_are_not_finite(self, part: str) -> None:
        model = vae()
        with torch.no_grad():
            for parameter in getattr(model, part).parameters():
                parameter.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="are there NaN in"):
            reconstruct(model, TOKENIZER, TEXTS)

    @pytest.mark.parametrize("sampled", [False, True])
    def test_a_model_with_labels_takes_the_most_probable_one(self, sampled: bool) -> None:
        torch.manual_seed(0)
        model = SemiSupervisedTextVAE(LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z + 2), 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        batch = EncodedTexts(TOKENIZER.encode(TEXTS)).batch()
        model.eval()
        head = model.label_head.logits
        with torch.no_grad():  # no label suits every text
            head.bias.sub_(head(model.encoder.features(batch)).mean(0))
        labels = model.label_posterior(batch).probs.argmax(1)
        assert len(labels.unique()) == 2
        q = model.posterior(batch, labels)
        z = sample_codes(q, 4) if sampled else q.loc
        expected = decode_codes(model, TOKENIZER, model.code(z, labels), max_length=9)
        options = {"max_length": 9, "sampled": sampled, "seed": 4}
        assert reconstruct(model, TOKENIZER, TEXTS, **options) == expected
        assert decode_codes(model, TOKENIZER, model.code(z, 1 - labels), max_length=9) != expected

    def test_one_string_is_no_list(self) -> None:
        with pytest.raises(TypeError, match=r"write \[text\]"):
            reconstruct(vae(), TOKENIZER, "the film")

    def test_a_language_model_has_no_code(self) -> None:
        model: Any = language_model()
        with pytest.raises(ValueError, match="needs a TextVAE"):
            reconstruct(model, TOKENIZER, ["the film"])


class TestInterpolateTexts:
    @pytest.mark.parametrize("steps", [2, 5])
    def test_the_ends_are_the_reconstructions(self, steps: int) -> None:
        model = vae()
        ends = [TEXTS[0], TEXTS[2]]
        path = interpolate_texts(model, TOKENIZER, *ends, steps, max_length=9)
        assert len(path) == steps
        left, right = reconstruct(model, TOKENIZER, ends, max_length=9)
        assert left != right
        assert (path[0], path[-1]) == (left, right)

    def test_the_middle_is_the_decoded_mean_of_the_codes(self) -> None:
        model = vae()
        path = interpolate_texts(model, TOKENIZER, TEXTS[0], TEXTS[2], 3, max_length=9)
        middle = means(model, [TEXTS[0], TEXTS[2]]).mean(0, keepdim=True)
        assert path[1] == decode_codes(model, TOKENIZER, middle, max_length=9)[0]

    def test_the_same_text_twice(self) -> None:
        path = interpolate_texts(vae(), TOKENIZER, "dull film", "dull film", 4, max_length=9)
        assert len(set(path)) == 1

    def test_one_step_is_no_walk(self) -> None:
        with pytest.raises(ValueError, match="at least 2 steps"):
            interpolate_texts(vae(), TOKENIZER, "the", "film", 1)


BLANKS = [
    "_ film was dull",
    "the film was _",
    "the _ was _",
    "_ _ _",
    "_",
    "the _ _ the was dull",
]


class TestImputeByALanguageModel:
    @pytest.mark.parametrize("seed", range(3))
    def test_it_finds_the_most_probable_filling(self, seed: int) -> None:
        model = language_model(seed)
        got = impute(model, TOKENIZER, BLANKS, width=64)
        for text, filled in zip(BLANKS, got, strict=True):
            choices = fillings(text)
            assert filled == choices[int(log_likelihood(model, choices).argmax())]

    def test_it_looks_to_the_right(self) -> None:
        """The best filling is not always the greedy one."""
        models = [language_model(seed) for seed in range(5)]
        wide = [impute(model, TOKENIZER, BLANKS, width=64) for model in models]
        assert wide != [impute(model, TOKENIZER, BLANKS, width=1) for model in models]

    @pytest.mark.parametrize("width", [1, 4])
    def test_only_blanks_change(self, width: int) -> None:
        for text, filled in zip(
            BLANKS, impute(language_model(), TOKENIZER, BLANKS, width=width), strict=True
        ):
            assert filled in fillings(text)

    def test_a_text_does_not_depend_on_the_others(self) -> None:
        model = language_model()
        assert impute(model, TOKENIZER, BLANKS) == [
            impute(model, TOKENIZER, [text])[0] for text in BLANKS
        ]


class TestImputeByAVAE:
    @pytest.mark.parametrize("seed", range(8))
    def test_one_round_is_the_best_filling_for_the_code_of_the_given_words(self, seed: int) -> None:
        model = vae(seed)
        for text in BLANKS:
            z = means(model, [" ".join(word for word in text.split() if word != "_")])
            choices = fillings(text)
            best = choices[int(log_likelihood(model, choices, z.expand(len(choices), -1)).argmax())]
            assert impute(model, TOKENIZER, [text], width=64, rounds=1) == [best]

    def test_the_next_round_is_for_the_code_of_the_filled_text(self) -> None:
        changed = 0
        for model, text in itertools.product(map(vae, range(6)), BLANKS):
            first, second = (
                impute(model, TOKENIZER, [text], width=64, rounds=rounds)[0] for rounds in (1, 2)
            )
            choices = fillings(text)
            z = means(model, [first]).expand(len(choices), -1)
            assert second == choices[int(log_likelihood(model, choices, z).argmax())]
            changed += first != second
        assert changed > 0

    def test_it_comes_to_rest(self) -> None:
        """Where no word changes any more, the rounds end."""
        model = vae()
        encoded: list[int] = []
        model.encoder.register_forward_hook(lambda *_: encoded.append(1))
        rested = impute(model, TOKENIZER, BLANKS, rounds=50)
        assert len(encoded) < 50
        assert rested == impute(model, TOKENIZER, BLANKS, rounds=len(encoded))

    def test_texts_keep_their_order_and_do_not_depend_on_each_other(self) -> None:
        model = vae()
        alone = [impute(model, TOKENIZER, [text])[0] for text in BLANKS]
        assert impute(model, TOKENIZER, BLANKS) == alone
        assert impute(model, TOKENIZER, BLANKS[::-1]) == alone[::-1]


@pytest.mark.parametrize("make", [vae, language_model])
class TestImpute:
    def test_nothing_to_do(self, make: Any) -> None:
        assert impute(make(), TOKENIZER, []) == []
        texts = ["the film  was dull", "", "  "]
        assert impute(make(), TOKENIZER, texts) == texts

    def test_unknown_words_and_white_space_stay(self, make: Any) -> None:
        (filled,) = impute(make(), TOKENIZER, ["  Ze_bras _  was\t_ !\n"])
        words = "|".join(WORDS)
        assert re.fullmatch(rf"  Ze_bras ({words})  was\t({words}) !\n", filled)

    def test_an_unknown_word_with_the_mark_inside_is_one_word(self, make: Any) -> None:
        for text in BLANKS:
            inside, plain = (
                impute(make(), TOKENIZER, [f"{word} {text}"])[0] for word in ("a_b", "zebra")
            )
            assert inside.split()[1:] == plain.split()[1:]

    def test_another_mark(self, make: Any) -> None:
        (filled,) = impute(make(), TOKENIZER, ["the [...] was _"], blank="[...]")
        the, found, was, underscore = filled.split()
        assert (the, was, underscore) == ("the", "was", "_")
        assert found in WORDS

    def test_subwords(self, make: Any) -> None:
        """A blank is one token; the text around it stays."""
        tokenizer = Tokenizer.train(["the film was dull"] * 3, model="bpe", max_vocabulary=290)
        model = make(vocabulary_size=len(tokenizer))
        with torch.no_grad():
            model.decoder.output.bias[tokenizer.backend.token_to_id("Ġwas")] = 50
        read: list[int] = []
        model.decoder.embedding.register_forward_hook(lambda *_: read.append(1))
        assert impute(model, tokenizer, ["_ film was _"], rounds=1) == ["was film was was"]
        # A blank takes the white space before it along: two blanks, two words, an end mark.
        assert len(read) == 5

    def test_a_word_without_an_unknown_mark_for_it(self, make: Any) -> None:
        class Vocabulary:
            itos = ("<pad>", "<bos>", "<eos>", *WORDS)

        tokenizer = Tokenizer.from_torchtext(Vocabulary())
        assert tokenizer.unk_id is None
        with pytest.raises(ValueError, match="'zebra' is outside the vocabulary"):
            impute(make(), tokenizer, ["the zebra was _"])
        model = make(vocabulary_size=len(tokenizer))
        (filled,) = impute(model, tokenizer, ["the _ was dull"])
        assert filled in fillings("the _ was dull")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"blank": ""}, "mark without white space"),
            ({"blank": "_ _"}, "mark without white space"),
            ({"width": 0}, "width must be at least 1"),
            ({"rounds": 0}, "rounds must be at least 1"),
        ],
    )
    def test_bad_options(self, make: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            impute(make(), TOKENIZER, ["the _"], **options)

    def test_a_blank_inside_a_word(self, make: Any) -> None:
        with pytest.raises(ValueError, match="put white space around it"):
            impute(make(), TOKENIZER, ["the film was _."])

    def test_one_string_is_no_list(self, make: Any) -> None:
        with pytest.raises(TypeError, match=r"write \[text\]"):
            impute(make(), TOKENIZER, "the _ was")
