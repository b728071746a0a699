from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutvae.data.tokenization import Tokenizer
from tutvae.generation import decoding
from tutvae.generation.decoding import FREE, beam_search, fill, generate, keep_most_probable
from tutvae.models import LSTMDecoder

TOKENIZER = Tokenizer.train(["c c c b b a"])
PAD, BOS, EOS, UNK, *WORDS = range(7)
V, E, H, Z = 7, 5, 6, 3
B = 4

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "plain": {},
    "hot": {"temperature": 30.0},
    "top_k": {"top_k": 2},
    "nucleus": {"top_p": 0.5},
}


def decoder(latent_size: int = Z, seed: int = 0, sharpness: float = 4.0) -> LSTMDecoder:
    """A decoder of random weights, sure enough of itself for greedy decoding to go wrong."""
    torch.manual_seed(seed)
    made = LSTMDecoder(V, E, H, latent_size)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(sharpness)
    return made.eval()


def codes(count: int = B, seed: int = 1) -> Tensor:
    return torch.randn(count, Z, generator=torch.Generator().manual_seed(seed))


def log_prob(model: LSTMDecoder, string: tuple[int, ...], z: Tensor | None) -> float:
    """log p of one string, by the full pass; `z` is `[Z]`."""
    tokens = torch.tensor([[BOS, *string]])
    with torch.no_grad():
        hidden = model(tokens[:, :-1], None if z is None else z[None])
        log_p = model.project(hidden).log_softmax(-1)
    return log_p.gather(-1, tokens[:, 1:, None]).sum().item()


def best_string(model: LSTMDecoder, z: Tensor | None, most_words: int) -> tuple[int, ...]:
    """The most probable string, by looking at every one."""
    strings = [
        (*words, EOS)
        for count in range(most_words + 1)
        for words in itertools.product([UNK, *WORDS], repeat=count)
    ]
    return max(strings, key=lambda string: log_prob(model, string, z))


def stripped(row: Tensor) -> tuple[int, ...]:
    return tuple(token for token in row.tolist() if token != PAD)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("latent_size", [0, Z])
class TestEveryStrategy:
    def run(self, strategy: str, latent_size: int, **options: Any) -> Tensor:
        model = decoder(latent_size, sharpness=1.5)
        z = codes(30) if latent_size else None
        options = {"tokenizer": TOKENIZER, "count": 30} | STRATEGIES[strategy] | options
        return generate(model, z, **options)

    def test_a_string_holds_words_then_its_end_mark_then_padding(
        self, strategy: str, latent_size: int
    ) -> None:
        for row in self.run(strategy, latent_size, max_length=9).tolist():
            string = [token for token in row if token != PAD]
            assert row == string + [PAD] * (len(row) - len(string))
            assert BOS not in string
            assert EOS not in string[:-1]
            assert len(string) == 9 or string[-1] == EOS

    def test_it_stops_at_the_longest_string(self, strategy: str, latent_size: int) -> None:
        tokens = self.run(strategy, latent_size, max_length=50)
        assert (tokens[:, -1] != PAD).any()
        assert self.run(strategy, latent_size, max_length=3).shape == (30, 3)
        assert self.run(strategy, latent_size, max_length=1).shape == (30, 1)

    def test_the_seed_alone_decides(self, strategy: str, latent_size: int) -> None:
        torch.manual_seed(3)
        first = self.run(strategy, latent_size, seed=1)
        state = torch.get_rng_state()
        model = decoder(latent_size)
        torch.set_rng_state(state)
        z = codes() if latent_size else None
        generate(model, z, tokenizer=TOKENIZER, **STRATEGIES[strategy])
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, self.run(strategy, latent_size, seed=1))
        if strategy != "greedy":
            assert not torch.equal(first[:, 0], self.run(strategy, latent_size, seed=2)[:, 0])

    @pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
    def test_when_ended_strings_leave_changes_nothing(
        self, strategy: str, latent_size: int, share: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = self.run(strategy, latent_size)
        monkeypatch.setattr(decoding, "STAY", share)
        assert torch.equal(self.run(strategy, latent_size), usual)

    @pytest.mark.parametrize("chunk_size", [1, 7, 30])
    def test_how_many_are_written_at_a_time_changes_nothing(
        self, strategy: str, latent_size: int, chunk_size: int
    ) -> None:
        chunked = self.run(strategy, latent_size, chunk_size=chunk_size)
        assert torch.equal(chunked, self.run(strategy, latent_size))

    def test_a_row_does_not_depend_on_those_behind_it(
        self, strategy: str, latent_size: int
    ) -> None:
        model, z = decoder(latent_size, sharpness=1.5), codes(30) if latent_size else None
        options = {"tokenizer": TOKENIZER} | STRATEGIES[strategy]
        few = generate(model, None if z is None else z[:3], count=3, **options)
        rows = [stripped(row) for row in self.run(strategy, latent_size)[:3]]
        assert [stripped(row) for row in few] == rows


class TestGreedy:
    @pytest.mark.parametrize("latent_size", [0, Z])
    def test_it_takes_the_most_probable_token_of_the_full_pass(self, latent_size: int) -> None:
        model = decoder(latent_size)
        z = codes() if latent_size else None
        tokens = generate(model, z, tokenizer=TOKENIZER, count=B, max_length=6, temperature=0.0)
        for i, row in enumerate(tokens):
            string = stripped(row)
            for t, token in enumerate(string):
                scores = {
                    other: log_prob(model, (*string[:t], other), None if z is None else z[i])
                    for other in (EOS, UNK, *WORDS)
                }
                assert token == max(scores, key=scores.__getitem__)

    @given(st.integers(0, 50))
    @settings(max_examples=15)
    def test_it_is_a_beam_of_one(self, seed: int) -> None:
        model, z = decoder(seed=seed), codes(seed=seed)
        greedy = generate(model, z, tokenizer=TOKENIZER, max_length=6, temperature=0.0)
        beam, scores = beam_search(model, z, tokenizer=TOKENIZER, max_length=6, width=1)
        assert torch.equal(beam, greedy)
        for row, code, score in zip(beam, z, scores, strict=True):
            assert score.item() == pytest.approx(log_prob(model, stripped(row), code), abs=1e-4)

    def test_top_1_is_greedy(self) -> None:
        greedy = generate(decoder(), codes(), tokenizer=TOKENIZER, temperature=0.0)
        assert torch.equal(generate(decoder(), codes(), tokenizer=TOKENIZER, top_k=1), greedy)

    @pytest.mark.parametrize("temperature", [1e-4, 1e-12, 1e-45])
    def test_no_temperature_is_too_low(self, temperature: float) -> None:
        greedy = generate(decoder(), codes(), tokenizer=TOKENIZER, temperature=0.0)
        cold = generate(decoder(), codes(), tokenizer=TOKENIZER, temperature=temperature, seed=5)
        assert torch.equal(cold, greedy)

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        batch = generate(decoder(), codes(), tokenizer=TOKENIZER, temperature=0.0)
        lengths = {len(stripped(row)) for row in batch}
        assert len(lengths) > 1  # some rows end before others
        for row, z in zip(batch, codes(), strict=True):
            alone = generate(decoder(), z[None], tokenizer=TOKENIZER, temperature=0.0)
            assert stripped(alone[0]) == stripped(row)


class TestSampling:
    """The first token, against the softmax."""

    def shares(self, **options: Any) -> Tensor:
        count = 20_000
        tokens = generate(
            decoder(0, sharpness=2.0),
            tokenizer=TOKENIZER,
            count=count,
            max_length=1,
            **options,
        )
        return tokens[:, 0].bincount(minlength=V) / count

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        model = decoder(0, sharpness=2.0)
        with torch.no_grad():
            logits = model.project(model(torch.tensor([[BOS]])))[0, 0]
        logits[[PAD, BOS]] = -torch.inf
        return (logits / temperature).softmax(-1)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_temperature(self, temperature: float) -> None:
        expected = self.probabilities(temperature)
        got = self.shares(temperature=temperature)
        torch.testing.assert_close(got, expected, atol=0.012, rtol=0)

    def test_top_k(self) -> None:
        expected = self.probabilities()
        expected[expected < expected.topk(2).values[-1]] = 0
        torch.testing.assert_close(
            self.shares(top_k=2), expected / expected.sum(), atol=0.012, rtol=0
        )

    def test_a_k_beyond_the_vocabulary(self) -> None:
        assert torch.equal(self.shares(top_k=99), self.shares())

    def test_the_whole_nucleus_is_plain_sampling(self) -> None:
        options: dict[str, Any] = {"tokenizer": TOKENIZER, "max_length": 8, "seed": 3}
        plain = generate(decoder(), codes(), **options)
        assert torch.equal(generate(decoder(), codes(), top_p=1.0, **options), plain)
        assert torch.equal(generate(decoder(), codes(), top_p=1 - 1e-7, **options), plain)

    @pytest.mark.parametrize("drawn", [2**-53, 0.5, 1.0])
    def test_what_is_impossible_is_never_drawn(
        self, drawn: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even by the smallest and the largest number that may be drawn."""
        monkeypatch.setattr(
            torch, "rand", lambda shape, **_: torch.full(shape, 1 - drawn, dtype=torch.float64)
        )
        model = decoder(0)
        with torch.no_grad():
            model.output.weight.zero_()
            model.output.bias.fill_(-torch.inf)
            model.output.bias[[UNK, WORDS[1]]] = torch.tensor([0.0, -30.0])
        tokens = generate(model, tokenizer=TOKENIZER, count=3, max_length=2)
        assert set(tokens.flatten().tolist()) <= {UNK, WORDS[1]}

    def test_rows_and_steps_draw_anew(self) -> None:
        model = decoder(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        tokens = generate(model, tokenizer=TOKENIZER, count=200, max_length=4)
        assert len({tuple(row) for row in tokens.tolist()}) > 100


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_models_and_codes_of_another_precision(precision: torch.dtype) -> None:
    """Codes are brought to the model's precision, whatever theirs is."""
    model, template = decoder().to(precision), torch.tensor([[FREE, FREE, EOS]] * B)
    for z in (codes(), codes().double()):
        assert generate(model, z, tokenizer=TOKENIZER, top_p=0.9).dtype == torch.int64
        assert beam_search(model, z, tokenizer=TOKENIZER)[1].isfinite().all()
        assert (fill(model, z, template, tokenizer=TOKENIZER, width=2)[0] != FREE).all()


class TestKeepMostProbable:
    def test_the_smallest_nucleus_holds_the_most_probable_token(self) -> None:
        kept = keep_most_probable(torch.tensor([0.1, 0.4, 0.2]), top_p=1e-46)
        assert kept.isfinite().tolist() == [False, True, False]

    LOGITS = torch.tensor([[0.2, 0.5, 0.05, 0.25]]).log()

    @pytest.mark.parametrize(
        ("top_p", "kept"),
        [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.76, [0, 1, 3]), (0.96, [0, 1, 2, 3])],
    )
    def test_the_nucleus_by_hand(self, top_p: float, kept: list[int]) -> None:
        got = keep_most_probable(self.LOGITS, top_p=top_p)
        assert got[0].isfinite().nonzero().flatten().tolist() == kept
        assert torch.equal(got[0, kept], self.LOGITS[0, kept])

    @pytest.mark.parametrize(("top_k", "kept"), [(1, [1]), (2, [1, 3]), (3, [0, 1, 3])])
    def test_the_top_k_by_hand(self, top_k: int, kept: list[int]) -> None:
        got = keep_most_probable(self.LOGITS, top_k=top_k)
        assert got[0].isfinite().nonzero().flatten().tolist() == kept

    def test_equal_tokens_are_counted(self) -> None:
        assert keep_most_probable(torch.zeros(2, 5), top_k=3).isfinite().sum(1).tolist() == [3, 3]

    @pytest.mark.parametrize("few", [1, 3, 40])
    @pytest.mark.parametrize("top_k", [None, 1, 7, 40])
    @pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999999, 1.0])
    def test_against_sorting_all(
        self, top_p: float, top_k: int | None, few: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "FEW", few)
        logits = 2 * torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
        for row, got in zip(logits, keep_most_probable(logits, top_k, top_p), strict=True):
            kept, held = [], 0.0
            for token in row.argsort(descending=True).tolist()[:top_k]:
                if kept and held >= top_p:
                    break
                kept.append(token)
                held += row.softmax(-1)[token].item()
            assert got.isfinite().nonzero().flatten().tolist() == sorted(kept)
            assert torch.equal(got[kept], row[kept])

    def test_both(self) -> None:
        got = keep_most_probable(self.LOGITS, top_k=3, top_p=0.51)
        assert got[0].isfinite().nonzero().flatten().tolist() == [1, 3]


class TestBeamSearch:
    @pytest.mark.parametrize("latent_size", [0, Z])
    @pytest.mark.parametrize("seed", range(4))
    def test_a_wide_beam_finds_the_best_of_all_strings(self, latent_size: int, seed: int) -> None:
        """At most three words of four: 85 strings."""
        model = decoder(latent_size, seed)
        z = codes(seed=seed) if latent_size else None
        tokens, scores = beam_search(
            model, z, tokenizer=TOKENIZER, count=B, max_length=4, width=100
        )
        for i in range(B):
            code = None if z is None else z[i]
            best = best_string(model, code, most_words=3)
            assert stripped(tokens[i]) == best
            assert scores[i].item() == pytest.approx(log_prob(model, best, code), abs=1e-4)

    def test_it_beats_greedy(self) -> None:
        model, z = decoder(), codes(40)
        options: dict[str, Any] = {"tokenizer": TOKENIZER, "max_length": 8}
        narrow, wide = (beam_search(model, z, width=width, **options)[1] for width in (1, 30))
        assert wide.mean() > narrow.mean() + 0.1

    def test_lengths_are_not_normalised(self) -> None:
        """An end at once, at p = 0.4, beats an end after one of two words, at p = 0.3 each."""

        class Table(LSTMDecoder):
            def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
                first = torch.tensor([1e-9, 1e-9, 0.4, 1e-9, 0.3, 0.3, 1e-9]).log()
                then = torch.tensor([1e-9, 1e-9, 1.0, 1e-9, 1e-9, 1e-9, 1e-9]).log()
                return torch.where((token == BOS)[:, None], first, then), state

        tokens, scores = beam_search(Table(V, E, H), tokenizer=TOKENIZER, width=3, max_length=4)
        assert stripped(tokens[0]) == (EOS,)
        assert scores.item() == pytest.approx(math.log(0.4), abs=1e-5)

    def test_what_has_not_ended_is_the_last_resort(self) -> None:
        model = decoder()
        with torch.no_grad():
            model.output.weight[EOS] = 0
            model.output.bias[EOS] = -60
        tokens, scores = beam_search(model, codes(), tokenizer=TOKENIZER, max_length=3, width=2)
        assert (tokens != EOS).all()
        assert tokens.shape == (B, 3)
        # With room for every string, some has ended.
        tokens, ended = beam_search(model, codes(), tokenizer=TOKENIZER, max_length=3, width=99)
        assert [stripped(row)[-1] for row in tokens] == [EOS] * B
        assert (ended < scores - 20).all()
        # Not even then, if it cannot.
        with torch.no_grad():
            model.output.bias[EOS] = -torch.inf
        tokens, scores = beam_search(model, codes(), tokenizer=TOKENIZER, max_length=3, width=99)
        assert (tokens >= UNK).all()
        assert scores.isfinite().all()

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        options: dict[str, Any] = {"tokenizer": TOKENIZER, "width": 3, "max_length": 7}
        batch, scores = beam_search(decoder(), codes(), **options)
        for i in range(B):
            alone, score = beam_search(decoder(), codes()[i : i + 1], **options)
            assert stripped(alone[0]) == stripped(batch[i])
            assert score.item() == pytest.approx(scores[i].item(), abs=1e-4)


class TestFill:
    TEMPLATES = (
        [FREE, 5, 4, EOS],
        [5, FREE, 4, EOS],
        [5, 4, FREE, EOS],
        [FREE, 6, FREE, EOS],
        [FREE, FREE, FREE, EOS],
        [6, UNK, 5, EOS],
        [FREE, EOS],
        [EOS],
    )

    def template(self) -> Tensor:
        return torch.tensor([[*row, *[PAD] * (4 - len(row))] for row in self.TEMPLATES])

    @pytest.mark.parametrize("latent_size", [0, Z])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_wide_beam_finds_the_best_filling(self, latent_size: int, seed: int) -> None:
        model = decoder(latent_size, seed)
        z = codes(len(self.TEMPLATES), seed) if latent_size else None
        filled, scores = fill(model, z, self.template(), tokenizer=TOKENIZER, width=27)
        for i, row in enumerate(self.TEMPLATES):
            code = None if z is None else z[i]
            choices = [WORDS if token == FREE else [token] for token in row]
            best = max(itertools.product(*choices), key=lambda s: log_prob(model, s, code))
            assert stripped(filled[i]) == best
            assert scores[i].item() == pytest.approx(log_prob(model, best, code), abs=1e-4)

    @given(st.integers(0, 1_000), st.integers(1, 5))
    def test_given_words_stay_and_free_ones_are_words(self, seed: int, width: int) -> None:
        filled, _ = fill(decoder(0, seed), None, self.template(), tokenizer=TOKENIZER, width=width)
        free = self.template() == FREE
        assert torch.equal(filled[~free], self.template()[~free])
        assert (filled[free] >= 4).all()


class TestWhatItLeavesBehind:
    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode(self, training: bool) -> None:
        torch.manual_seed(0)
        model = LSTMDecoder(V, E, H, Z, word_dropout=0.5, dropout=0.5).train(training)
        before = torch.get_rng_state()
        first = generate(model, codes(), tokenizer=TOKENIZER)
        assert torch.equal(first, generate(model, codes(), tokenizer=TOKENIZER))
        beam_search(model, codes(), tokenizer=TOKENIZER)
        assert model.training is training
        assert torch.equal(torch.get_rng_state(), before)

    def test_every_step_reads_one_token(self) -> None:
        rows = self.rows_read(lambda model: generate(model, codes(), tokenizer=TOKENIZER))
        assert rows[0] == B
        assert max(rows) == B
        rows = self.rows_read(lambda model: beam_search(model, codes(), tokenizer=TOKENIZER))
        assert rows[0] == B  # all beams of a string start alike
        assert max(rows) <= B * 5

    def test_it_reads_no_more_strings_at_a_time_than_it_was_told(self) -> None:
        options = {"tokenizer": TOKENIZER, "chunk_size": 2, "max_length": 1}
        assert self.rows_read(lambda model: generate(model, codes(5), **options)) == [2, 2, 1]

    def test_strings_that_have_ended_are_not_read_any_more(self) -> None:
        rows = self.rows_read(lambda model: generate(model, codes(40), tokenizer=TOKENIZER))
        assert rows == sorted(rows, reverse=True)
        assert rows[-1] < 40

    def test_beams_are_read_from_the_first_blank_to_the_end_of_their_string(self) -> None:
        template = torch.tensor([[4, 4, FREE, 5, EOS], [4, FREE, EOS, PAD, PAD]])
        options: dict[str, Any] = {"tokenizer": TOKENIZER, "width": 3}
        rows = self.rows_read(lambda model: fill(model, codes(2), template, **options))
        assert rows == [2, 2, 1 + 3, 3, 3]

    def rows_read(self, write: Callable[[LSTMDecoder], Any]) -> list[int]:
        """How many tokens the decoder reads in each step."""
        model, read = decoder(sharpness=1.5), []
        model.embedding.register_forward_hook(lambda module, args, out: read.append(len(out)))
        write(model)
        return read


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_length": 0}, "max_length must be at least 1"),
            ({"top_k": 0}, "top_k must be at least 1"),
            ({"count": 0}, "count must be at least 1"),
            ({"chunk_size": 0}, "chunk_size must be at least 1"),
            ({"temperature": -1.0}, "temperature must be at least 0"),
            ({"temperature": math.nan}, "temperature must be at least 0"),
            ({"temperature": math.inf}, "temperature must be at least 0 and finite"),
            ({"seed": -1}, "seed must lie between 0 and"),
            ({"seed": 2**64}, "seed must lie between 0 and"),
            ({"top_p": 0.0}, "top_p above 0"),
            ({"top_p": 1.5}, "at most 1"),
        ],
    )
    def test_generate(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            generate(decoder(0), tokenizer=TOKENIZER, **options)

    @pytest.mark.parametrize("seed", [None, 0.5, "0", True])
    def test_a_seed_that_is_no_integer(self, seed: Any) -> None:
        with pytest.raises(TypeError, match="seed must be an integer"):
            generate(decoder(0), tokenizer=TOKENIZER, seed=seed)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_weights_that_are_not_finite_write_nothing(self, value: float) -> None:
        model = decoder(0)
        with torch.no_grad():
            model.output.weight[WORDS[0]] = value
        template = torch.tensor([[FREE, EOS]])
        for write in (
            lambda: generate(model, tokenizer=TOKENIZER),
            lambda: generate(model, tokenizer=TOKENIZER, temperature=0.0),
            lambda: beam_search(model, tokenizer=TOKENIZER),
            lambda: fill(model, None, template, tokenizer=TOKENIZER, width=2),
        ):
            with pytest.raises(FloatingPointError, match="NaN in its weights"):
                write()

    def test_a_beam_of_none(self) -> None:
        with pytest.raises(ValueError, match="width must be at least 1"):
            beam_search(decoder(0), tokenizer=TOKENIZER, width=0)
        with pytest.raises(ValueError, match="width must be at least 1"):
            fill(decoder(0), None, torch.tensor([[EOS]]), tokenizer=TOKENIZER, width=0)

    def test_a_code_that_does_not_go_with_the_decoder(self) -> None:
        with pytest.raises(ValueError, match="no code"):
            generate(decoder(0), codes(), tokenizer=TOKENIZER)
        with pytest.raises(ValueError, match="needs a code"):
            beam_search(decoder(), tokenizer=TOKENIZER)

    def test_the_tokenizer_of_another_model(self) -> None:
        other = Tokenizer.train(["a b c d"])
        with pytest.raises(ValueError, match="tokenizer has 8 tokens, the model 7"):
            generate(decoder(0), tokenizer=other)
        with pytest.raises(ValueError, match="tokenizer has 8 tokens, the model 7"):
            beam_search(decoder(0), tokenizer=other)
