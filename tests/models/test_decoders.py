"""The protocol of decoders, over every decoder in conftest.py; then each decoder's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutvae.data.batches.text import EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.generation.decoding import FREE, beam_search, fill, generate
from tutvae.models.bag_decoder import BagDecoder
from tutvae.models.lstm_decoder import Decoder, LSTMDecoder, State, WordDropout, tie_weights
from tutvae.models.projected_lstm_decoder import ProjectedLSTMDecoder
from tutvae.models.text_vae import document_log_likelihood

B, T, V, Z = 4, 6, 11, 3
BOS, EOS, UNK = 1, 2, 3

Build = Callable[..., Decoder]
with_and_without_code = pytest.mark.parametrize("latent_size", [0, Z])
in_both_modes = pytest.mark.parametrize("training", [False, True])


def tokens(rows: int = B, length: int = T, seed: int = 1) -> Tensor:
    """Random inputs `[B, T]` after the start mark; no other mark occurs among them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(4, V, (rows, length), generator=generator)
    drawn[:, 0] = BOS
    return drawn


def code(latent_size: int, rows: int = B, seed: int = 2) -> Tensor | None:
    """Codes `[B, Z]`, or None for Z = 0."""
    if latent_size == 0:
        return None
    return torch.randn(rows, latent_size, generator=torch.Generator().manual_seed(seed))


def chosen(z: Tensor | None, rows: list[int]) -> Tensor | None:
    return None if z is None else z[rows]


def steps(decoder: Decoder, inputs: Tensor, z: Tensor | None) -> Tensor:
    """The logits `[B, T, V]`, one token at a time."""
    state = decoder.start(z, len(inputs))
    logits = []
    for token in inputs.T:
        step_logits, state = decoder.step(token, state)
        logits.append(step_logits)
    return torch.stack(logits, dim=1)


@with_and_without_code
class TestProtocol:
    def test_shapes(self, build: Build, latent_size: int) -> None:
        decoder, z = build(V, latent_size), code(latent_size)
        assert (decoder.vocabulary_size, decoder.latent_size) == (V, latent_size)
        hidden = decoder(tokens(), z)
        H = hidden.shape[-1]
        assert hidden.shape == (B, T, H)
        assert len({B, T, V, Z, H}) == 5
        assert decoder.project(hidden).shape == (B, T, V)
        assert decoder.project(hidden[0, :2]).shape == (2, V)
        logits, _ = decoder.step(tokens()[:, 0], decoder.start(z, B))
        assert logits.shape == (B, V)

    def test_every_parameter_gets_a_gradient(self, build: Build, latent_size: int) -> None:
        decoder = build(V, latent_size).train()
        decoder.project(decoder(tokens(), code(latent_size))).log_softmax(-1)[
            ..., 0
        ].sum().backward()
        for name, parameter in decoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_state_dict_round_trip(self, build: Build, latent_size: int) -> None:
        trained, fresh = build(V, latent_size, seed=1), build(V, latent_size, seed=2)
        inputs, z = tokens(), code(latent_size)
        assert not torch.equal(trained(inputs, z), fresh(inputs, z))
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(trained(inputs, z), fresh(inputs, z))
        assert torch.equal(steps(trained, inputs, z), steps(fresh, inputs, z))

    @in_both_modes
    @pytest.mark.parametrize("t", range(T))
    def test_no_position_sees_a_later_token(
        self, build: Build, latent_size: int, training: bool, t: int
    ) -> None:
        decoder, inputs, z = build(V, latent_size).train(training), tokens(), code(latent_size)
        changed = inputs.clone()
        changed[:, t] = (inputs[:, t] + 1) % V
        before, after = decoder(inputs, z), decoder(changed, z)
        assert torch.equal(before[:, :t], after[:, :t])
        assert (before[:, t] != after[:, t]).any(-1).all() == (decoder.receptive_field != 0)

    @in_both_modes
    def test_padding_changes_nothing(self, build: Build, latent_size: int, training: bool) -> None:
        decoder, inputs, z = build(V, latent_size).train(training), tokens(), code(latent_size)
        padded = torch.cat([inputs, torch.zeros(B, 5, dtype=torch.int64)], dim=1)
        torch.testing.assert_close(decoder(padded, z)[:, :T], decoder(inputs, z))

    @in_both_modes
    def test_rows_do_not_mix(self, build: Build, latent_size: int, training: bool) -> None:
        """A batch of one equals its row; permuting the batch permutes the outputs."""
        decoder, inputs, z = build(V, latent_size).train(training), tokens(), code(latent_size)
        hidden = decoder(inputs, z)
        rows = [decoder(inputs[[row]], chosen(z, [row])) for row in range(B)]
        torch.testing.assert_close(torch.cat(rows), hidden)
        order = [2, 0, 3, 1]
        torch.testing.assert_close(decoder(inputs[order], chosen(z, order)), hidden[order])

    def test_eval_mode_is_deterministic(self, build: Build, latent_size: int) -> None:
        decoder = build(V, latent_size, dropout=0.5)
        inputs, z = tokens(), code(latent_size)
        assert torch.equal(decoder(inputs, z), decoder(inputs, z))
        assert torch.equal(steps(decoder, inputs, z), steps(decoder, inputs, z))
        plain = build(V, latent_size)
        assert torch.equal(decoder(inputs, z), plain(inputs, z))

    def test_training_mode_is_noisy(self, build: Build, latent_size: int) -> None:
        decoder = build(V, latent_size, dropout=0.5).train()
        inputs, z = tokens(), code(latent_size)
        assert not torch.equal(decoder(inputs, z), decoder(inputs, z))

    @pytest.mark.parametrize("rows", [1, B])
    @pytest.mark.parametrize("length", [1, T, 40])
    def test_steps_give_the_logits_of_the_full_pass(
        self, build: Build, latent_size: int, rows: int, length: int
    ) -> None:
        decoder = build(V, latent_size)
        inputs, z = tokens(rows, length), code(latent_size, rows)
        full = decoder.project(decoder(inputs, z))
        torch.testing.assert_close(steps(decoder, inputs, z), full, rtol=1e-5, atol=1e-5)

    def test_the_state_does_not_grow(self, build: Build, latent_size: int) -> None:
        decoder, inputs = build(V, latent_size), tokens(length=30)
        state = decoder.start(code(latent_size), B)
        sizes = [tensor.shape for tensor in state]
        assert all(len(tensor) == B for tensor in state)
        for token in inputs.T:
            _, state = decoder.step(token, state)
        assert [tensor.shape for tensor in state] == sizes

    def test_a_step_leaves_the_old_state_alone(self, build: Build, latent_size: int) -> None:
        """Beams go on from one state in several ways."""
        decoder, inputs, z = build(V, latent_size), tokens(), code(latent_size)
        _, state = decoder.step(inputs[:, 0], decoder.start(z, B))
        first, _ = decoder.step(inputs[:, 1], state)
        decoder.step(inputs[:, 2], state)
        again, _ = decoder.step(inputs[:, 1], state)
        assert torch.equal(first, again)

    @pytest.mark.parametrize("t", [0, 1, 3, 17])
    def test_a_selected_state_follows_its_rows(
        self, build: Build, latent_size: int, t: int
    ) -> None:
        decoder, z, rows = build(V, latent_size), code(latent_size), [2, 0, 2, 2, 1]
        before, after = tokens(length=t + 1)[:, :t], tokens(len(rows), 5, seed=8)
        state = decoder.start(z, B)
        for token in before.T:
            _, state = decoder.step(token, state)
        state = decoder.select(state, torch.tensor(rows))
        logits = []
        for token in after.T:
            step_logits, state = decoder.step(token, state)
            logits.append(step_logits)
        whole = torch.cat([before[rows], after], dim=1)
        full = decoder.project(decoder(whole, chosen(z, rows)))[:, t:]
        torch.testing.assert_close(torch.stack(logits, 1), full, rtol=1e-5, atol=1e-5)

    def test_the_precision_is_the_model_s(self, build: Build, latent_size: int) -> None:
        decoder, z = build(V, latent_size).double(), code(latent_size)
        z = None if z is None else z.double()
        assert decoder(tokens(), z).dtype == torch.float64
        assert steps(decoder, tokens(), z).dtype == torch.float64


@with_and_without_code
class TestReaders:
    """What goes for the decoders that read words: all but the bag."""

    def test_every_word_s_embedding_trains(self, reader: Build, latent_size: int) -> None:
        """From the padding's id, 0, to the last word's."""
        decoder = reader(V, latent_size).train()
        inputs = torch.arange(V).expand(B, V)
        decoder.project(decoder(inputs, code(latent_size))).log_softmax(-1)[..., 0].sum().backward()
        embeddings = [module for module in decoder.modules() if isinstance(module, nn.Embedding)]
        assert embeddings
        for embedding in embeddings:
            assert (embedding.weight.grad.abs().sum(1) > 0).all()

    def test_words_are_hidden_in_training_only(self, reader: Build, latent_size: int) -> None:
        decoder, plain = reader(V, latent_size, word_dropout=0.5), reader(V, latent_size)
        inputs, z = tokens(), code(latent_size)
        assert torch.equal(decoder(inputs, z), plain(inputs, z))
        assert torch.equal(steps(decoder, inputs, z), steps(plain, inputs, z))
        decoder.train()
        assert not torch.equal(decoder(inputs, z), decoder(inputs, z))

    def test_rate_one_hides_every_word_even_at_evaluation(
        self, reader: Build, latent_size: int
    ) -> None:
        inputless = reader(V, latent_size, word_dropout=1.0)
        plain, z = reader(V, latent_size), code(latent_size)
        hidden_words = torch.full((B, T), UNK)
        hidden_words[:, 0] = BOS
        expected = plain(hidden_words, z)
        for inputs in (tokens(), tokens(seed=9)):
            assert torch.equal(inputless(inputs, z), expected)
            assert torch.equal(inputless.train()(inputs, z), expected)
            inputless.eval()
            logits = steps(inputless, inputs, z)
            torch.testing.assert_close(logits, plain.project(expected), rtol=1e-5, atol=1e-5)

    def test_the_marks_are_the_tokenizer_s(self, reader: Build, latent_size: int) -> None:
        inputless = reader(V, latent_size, word_dropout=1.0, unk_id=8, bos_id=2)
        inputs, marks = tokens(), torch.full((B, T), 8)
        inputs[:, 0] = marks[:, 0] = 2
        z = code(latent_size)
        assert torch.equal(inputless(inputs, z), reader(V, latent_size)(marks, z))


class FullPass(Decoder):
    """Another decoder, whose state is all that was read: every step is a full pass."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.vocabulary_size, decoder.latent_size)
        self.decoder = decoder

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        return self.decoder(inputs, z)

    def project(self, hidden: Tensor) -> Tensor:
        return self.decoder.project(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        rows = self.check_code(z, batch_size)
        return torch.empty(rows, 0, dtype=torch.int64), torch.empty(rows, 0) if z is None else z

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        read, z = torch.cat([state[0], token[:, None]], dim=1), state[1]
        hidden = self(read, z if self.latent_size > 0 else None)
        return self.project(hidden[:, -1]), (read, z)


@with_and_without_code
class TestGeneration:
    """Step by step as by full passes, which know of no state that could go astray."""

    tokenizer = Tokenizer.train(["g f e d c b a"])
    options: ClassVar[dict[str, Any]] = {"tokenizer": tokenizer, "max_length": 30}

    def both(self, build: Build, latent_size: int) -> tuple[Decoder, Decoder]:
        decoder = build(V, latent_size)
        assert len(self.tokenizer) == V
        return decoder, FullPass(decoder).eval()

    @pytest.mark.parametrize("choice", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.8}])
    def test_greedy_and_sampled(
        self, build: Build, latent_size: int, choice: dict[str, Any]
    ) -> None:
        options = self.options | {"count": 60} | choice
        stepwise, full = (
            generate(decoder, code(latent_size, 60), **options)
            for decoder in self.both(build, latent_size)
        )
        assert torch.equal(stepwise, full)
        assert choice.get("temperature") == 0 or stepwise.shape[1] > 4

    @pytest.mark.parametrize("width", [2, 5])
    def test_beams(self, build: Build, latent_size: int, width: int) -> None:
        options = self.options | {"count": 20, "width": width}
        (stepwise, scores), (full, full_scores) = (
            beam_search(decoder, code(latent_size, 20), **options)
            for decoder in self.both(build, latent_size)
        )
        assert torch.equal(stepwise, full)
        torch.testing.assert_close(scores, full_scores, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("width", [1, 5])
    def test_beams_that_fill_blanks(self, build: Build, latent_size: int, width: int) -> None:
        template = torch.full((B, 12), FREE)
        template[:, [2, 3, 7]] = 6
        (stepwise, scores), (full, full_scores) = (
            fill(decoder, code(latent_size), template, tokenizer=self.tokenizer, width=width)
            for decoder in self.both(build, latent_size)
        )
        assert torch.equal(stepwise, full)
        torch.testing.assert_close(scores, full_scores, rtol=1e-5, atol=1e-4)


class TestCode:
    @pytest.mark.parametrize("dimension", range(Z))
    def test_every_dimension_reaches_every_position(self, build: Build, dimension: int) -> None:
        decoder, inputs, z = build(V, Z), tokens(), code(Z)
        moved = z.clone()
        moved[:, dimension] += 1
        assert (decoder(inputs, z) != decoder(inputs, moved)).any(-1).all()

    def test_the_batch_size_comes_from_the_code(self, build: Build) -> None:
        decoder, z = build(V, Z), code(Z)
        told, _ = decoder.step(tokens()[:, 0], decoder.start(z, B))
        untold, _ = decoder.step(tokens()[:, 0], decoder.start(z))
        assert torch.equal(told, untold)

    def test_a_missing_code(self, build: Build) -> None:
        for use in (lambda d: d(tokens()), lambda d: d.start(batch_size=B)):
            with pytest.raises(ValueError, match=rf"needs a code z \[B, {Z}\]: got None"):
                use(build(V, Z))

    def test_a_code_too_many(self, build: Build) -> None:
        for use in (lambda d: d(tokens(), code(Z)), lambda d: d.start(code(Z))):
            with pytest.raises(ValueError, match="has no code"):
                use(build(V, 0))

    @pytest.mark.parametrize("shape", [(B + 1, Z), (B, Z + 1), (2, B, Z), (Z,)])
    def test_a_code_of_another_shape(self, build: Build, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=rf"\[B, Z\] = \[{B}, {Z}\], not"):
            build(V, Z)(tokens(), torch.zeros(shape))

    def test_a_batch_of_unknown_size(self, build: Build) -> None:
        with pytest.raises(ValueError, match="give batch_size"):
            build(V, 0).start()


@pytest.mark.parametrize(("vocabulary_size", "latent_size"), [(0, Z), (V, -1)])
def test_impossible_sizes(build: Build, vocabulary_size: int, latent_size: int) -> None:
    with pytest.raises(ValueError, match="vocabulary_size of at least 1 and a latent_size of at"):
        build(vocabulary_size, latent_size)


class TestLSTMDecoder:
    def test_the_code_sets_the_initial_state(self) -> None:
        decoder = LSTMDecoder(V, 5, 7, Z)
        h, c, joined = decoder.start(code(Z))
        torch.testing.assert_close(
            c, code(Z) @ decoder.code_to_cell.weight.T + decoder.code_to_cell.bias
        )
        torch.testing.assert_close(h, torch.tanh(c))
        assert torch.equal(joined, code(Z))

    @pytest.mark.parametrize(("latent_size", "options"), [(0, {}), (Z, {"code_to_state": False})])
    def test_otherwise_the_initial_state_is_zero(
        self, latent_size: int, options: dict[str, bool]
    ) -> None:
        h, c, _ = LSTMDecoder(V, 5, 7, latent_size, **options).start(code(latent_size), B)
        assert torch.equal(h, torch.zeros(B, 7))
        assert torch.equal(c, torch.zeros(B, 7))

    def test_inputs_without_the_code(self) -> None:
        decoder = LSTMDecoder(V, 5, 7, Z, code_to_inputs=False)
        assert decoder.lstm.input_size == 5
        assert decoder.start(code(Z))[2].shape == (B, 0)

    def test_a_code_must_reach_the_decoder(self) -> None:
        with pytest.raises(ValueError, match="its state, its inputs or both"):
            LSTMDecoder(V, 5, 7, Z, code_to_state=False, code_to_inputs=False)

    def test_dropout_acts_on_words_and_on_outputs_but_not_on_the_code(self) -> None:
        """At rate 1, all that is left of an input is its code, and nothing of an output."""
        decoder = LSTMDecoder(V, 5, 7, Z, dropout=1.0).train()
        seen: list[Tensor] = []
        decoder.lstm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        assert not decoder(tokens(), code(Z)).any()
        assert torch.equal(seen[0][..., :5], torch.zeros(B, T, 5))
        assert torch.equal(seen[0][..., 5:], code(Z)[:, None].expand(B, T, Z))


class TestTiedWeights:
    def test_words_are_read_and_predicted_by_the_same_vectors(self) -> None:
        decoder = LSTMDecoder(V, 7, 7, Z)
        vectors, before = decoder.output.weight, sum(p.numel() for p in decoder.parameters())
        tie_weights(decoder)
        assert decoder.embedding.weight is decoder.output.weight is vectors
        assert sum(p.numel() for p in decoder.parameters()) == before - V * 7
        torch.optim.SGD(decoder.parameters(), lr=1.0)  # warns of parameters that come twice

    def test_they_stay_one_in_a_copy_that_is_loaded(self) -> None:
        trained, fresh = LSTMDecoder(V, 7, 7), LSTMDecoder(V, 7, 7)
        tie_weights(trained)
        tie_weights(fresh)
        fresh.load_state_dict(trained.state_dict())
        assert torch.equal(fresh.embedding.weight, trained.output.weight)
        assert fresh.embedding.weight is fresh.output.weight

    def test_other_sizes(self) -> None:
        with pytest.raises(ValueError, match="embedding_size equal to hidden_size, not 5 and 7"):
            tie_weights(LSTMDecoder(V, 5, 7))

    def test_wider_states_than_words(self) -> None:
        decoder = ProjectedLSTMDecoder(V, 5, 7, Z)
        tie_weights(decoder)
        assert decoder.embedding.weight is decoder.output.weight


class TestBagDecoder:
    def test_it_sees_nothing_but_its_code(self) -> None:
        decoder = BagDecoder(V, 5, 7, Z).eval()
        hidden = decoder(tokens(), code(Z))
        assert decoder.receptive_field == 0
        assert torch.equal(hidden, decoder(tokens(seed=9), code(Z)))
        assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))

    def test_its_score_is_a_sum_over_the_words_of_the_bag(self) -> None:
        decoder, z = BagDecoder(V, 5, 7, Z).eval(), code(Z, 2)
        (hidden,) = decoder.start(z)
        p = decoder.project(hidden).softmax(-1)
        batch = EncodedTexts([[BOS, 7, 8, 7, EOS], [BOS, 9, EOS]]).batch()
        expected = torch.stack([p[0, 7] ** 2 * p[0, 8] * p[0, EOS], p[1, 9] * p[1, EOS]]).log()
        torch.testing.assert_close(document_log_likelihood(decoder, batch, z), expected)

    def test_one_softmax_a_document_scores_as_one_at_every_position(self) -> None:
        decoder, z = BagDecoder(V, 5, 7, Z).eval(), code(Z, 2)
        batch = EncodedTexts([[BOS, 7, 8, 7, EOS], [BOS, 9, EOS]]).batch()
        logits = decoder.project(decoder(batch.inputs, z)).transpose(1, 2)  # [B, V, T]
        costs = F.cross_entropy(logits, batch.targets, reduction="none")
        expected = -(costs * batch.mask).sum(1)
        torch.testing.assert_close(document_log_likelihood(decoder, batch, z), expected)

    def test_its_bias_can_start_at_the_logarithms_of_the_frequencies(self) -> None:
        decoder = BagDecoder(V, 5, 7, Z)
        decoder.start_at_frequencies(EncodedTexts([[BOS, 7, 8, 7, EOS], [BOS, 9, EOS]]))
        p = decoder.output.bias.exp()
        assert p.sum().item() == pytest.approx(1)
        assert p[[7, 8, 9, EOS, BOS]].tolist() == pytest.approx(
            [x / (V + 6) for x in (3, 2, 2, 3, 1)]
        )


class TestWordDropout:
    def test_the_share_of_hidden_words(self) -> None:
        torch.manual_seed(0)
        inputs = tokens(300, 41)
        hidden = WordDropout(0.3)(inputs)
        assert (hidden[:, 0] == BOS).all()
        changed = hidden[:, 1:] != inputs[:, 1:]
        assert (hidden[:, 1:][changed] == UNK).all()
        assert changed.float().mean().item() == pytest.approx(0.3, abs=0.015)

    def test_it_is_drawn_anew_each_time(self) -> None:
        dropout = WordDropout(0.5)
        assert not torch.equal(dropout(tokens()), dropout(tokens()))

    def test_nothing_is_hidden_in_eval_mode(self) -> None:
        assert torch.equal(WordDropout(0.9).eval()(tokens()), tokens())

    @in_both_modes
    def test_rate_zero_hides_nothing(self, training: bool) -> None:
        assert torch.equal(WordDropout(0.0, unk_id=None).train(training)(tokens()), tokens())

    @in_both_modes
    def test_rate_one_hides_all_but_the_start_mark(self, training: bool) -> None:
        hidden = WordDropout(1.0, unk_id=8, bos_id=BOS).train(training)(tokens())
        assert hidden.tolist() == [[BOS] + [8] * (T - 1)] * B

    def test_the_callers_tokens_stay_as_they_are(self) -> None:
        inputs = tokens()
        WordDropout(1.0)(inputs)
        assert torch.equal(inputs, tokens())

    @pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
    def test_a_rate_that_is_no_probability(self, rate: float) -> None:
        with pytest.raises(ValueError, match=r"word_dropout must lie in \[0, 1\]"):
            WordDropout(rate)

    def test_no_unknown_mark(self) -> None:
        with pytest.raises(ValueError, match="needs an unknown mark"):
            WordDropout(0.1, unk_id=None)
