"""The dilated-CNN decoder's own; the protocol that it shares is in test_decoders.py."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tutvae.models.conv_decoder import (
    DILATIONS,
    CausalConv1d,
    DilatedConvDecoder,
    ResidualBlock,
)

B, T, V, E, C, Z = 4, 6, 11, 5, 14, 3
BOS = 1
FIELDS = {"small": 15, "medium": 63, "large": 125, "very_large": 187}

some_dilations = st.lists(st.integers(1, 5), min_size=1, max_size=4)
some_width = st.integers(2, 5)


def decoder(latent_size: int = 0, **options: Any) -> DilatedConvDecoder:
    """A decoder in eval mode, of double precision, so that faint gradients stay above 0."""
    torch.manual_seed(0)
    return DilatedConvDecoder(V, E, C, latent_size, **options).double().eval()


def tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    drawn = torch.randint(4, V, (rows, length), generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] = BOS
    return drawn


def codes() -> Tensor:
    return torch.randn(B, Z, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def ages_seen(model: DilatedConvDecoder, length: int) -> list[int]:
    """How many tokens ago the inputs were that the last prediction depends on, by gradient."""
    words: list[Tensor] = []
    model.embedding.register_forward_hook(lambda module, arguments, out: words.append(out))
    logits = model.project(model(tokens(1, length)))
    (gradient,) = torch.autograd.grad(logits[0, -1, 0], words)
    return sorted(length - 1 - int(t) for t in gradient[0].abs().sum(-1).nonzero())


class TestReceptiveField:
    @pytest.mark.parametrize("preset", DILATIONS)
    def test_of_a_preset(self, preset: Any) -> None:
        model = decoder(dilations=preset)
        assert model.receptive_field == FIELDS[preset]
        assert ages_seen(model, length=FIELDS[preset] + 9) == list(range(FIELDS[preset]))

    def test_the_presets(self) -> None:
        assert list(DILATIONS) == list(FIELDS)
        assert decoder(dilations="small").dilations == (1, 2, 4)
        assert decoder().dilations == decoder(dilations="medium").dilations == (1, 2, 4, 8, 16)
        assert DILATIONS["large"] == (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
        assert len(DILATIONS["very_large"]) == 15

    @given(dilations=some_dilations, width=some_width)
    def test_of_any_dilations_and_width(self, dilations: list[int], width: int) -> None:
        """The ages are all the sums of one multiple of each block's dilation."""
        model = decoder(dilations=dilations, width=width)
        steps = product(*(range(0, width * dilation, dilation) for dilation in dilations))
        ages = sorted({sum(step) for step in steps})
        assert ages_seen(model, length=model.receptive_field + 3) == ages
        assert ages[-1] == model.receptive_field - 1

    def test_what_lies_beyond_it_does_not_matter(self) -> None:
        model, inputs = decoder(dilations=[1, 2]), tokens(B, 12)
        seen = inputs[:, -model.receptive_field :]
        other = torch.cat([tokens(B, 12 - model.receptive_field, seed=5), seen], dim=1)
        assert not torch.equal(inputs, other)
        assert torch.equal(model(inputs)[:, -1], model(other)[:, -1])

    def test_the_start_of_a_document_is_seen_as_such(self) -> None:
        """Nothing before the first token is not the same as words before it."""
        model, inputs = decoder(dilations=[1]), tokens(B, T)
        assert not torch.allclose(model(inputs)[:, 1:3], model(inputs[:, 1:])[:, :2])


@given(
    dilations=some_dilations,
    width=some_width,
    rows=st.integers(1, 3),
    length=st.integers(1, 25),
    latent_size=st.sampled_from([0, Z]),
)
def test_steps_give_the_logits_of_the_full_pass(
    dilations: list[int], width: int, rows: int, length: int, latent_size: int
) -> None:
    model = decoder(latent_size, dilations=dilations, width=width).float()
    inputs, z = tokens(rows, length), codes().float()[:rows] if latent_size else None
    state = model.start(z, rows)
    full = model.project(model(inputs, z))
    for t in range(length):
        logits, state = model.step(inputs[:, t], state)
        torch.testing.assert_close(logits, full[:, t], rtol=1e-5, atol=1e-5)


class TestState:
    def test_it_remembers_just_what_the_convolutions_need(self) -> None:
        state = decoder(Z, dilations=[1, 3], width=4).start(codes())
        assert [tuple(tensor.shape) for tensor in state] == [(B, C), (B, 3, 7), (B, 9, 7)]
        assert not any(past.any() for past in state[1:])

    def test_a_step_changes_none_of_its_tensors(self) -> None:
        model, inputs = decoder(Z), tokens(B, 2)
        _, state = model.step(inputs[:, 0], model.start(codes()))
        before = [tensor.clone() for tensor in state]
        model.step(inputs[:, 1], state)
        assert all(map(torch.equal, state, before))

    def test_a_step_computes_one_position(self) -> None:
        model, lengths = decoder(), []
        for block in model.blocks:
            block.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
        state = model.start(batch_size=B)
        for token in tokens(B, T).T:
            _, state = model.step(token, state)
        assert lengths == [1] * T * len(model.blocks)


class TestCode:
    def test_its_share_of_the_first_convolution_is_computed_once(self) -> None:
        model, seen = decoder(Z), []
        model.code_to_channels.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(tokens(B, T), codes())
        state = model.start(codes())
        for token in tokens(B, T).T:
            _, state = model.step(token, state)
        assert [tuple(z.shape) for z in seen] == [(B, Z), (B, Z)]

    def test_it_joins_the_vector_of_every_word(self) -> None:
        model, seen = decoder(Z), []
        model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(tokens(B, T), codes())
        joined = torch.cat(
            [model.embedding(tokens(B, T)), codes()[:, None].expand(B, T, Z)], dim=-1
        )
        weight = torch.cat([model.word_to_channels.weight, model.code_to_channels.weight], dim=1)
        by_hand = joined @ weight.T + model.word_to_channels.bias
        torch.testing.assert_close(seen[0], by_hand)


def test_dropout_acts_on_words_and_on_blocks_but_not_on_the_code() -> None:
    """At rate 1, all that is left of a hidden state is what the code and the bias say."""
    model = decoder(Z, dropout=1.0).train()
    left = model.code_to_channels(codes()) + model.word_to_channels.bias
    expected = model.norm(left)[:, None].expand(B, T, C)
    torch.testing.assert_close(model(tokens(B, T), codes()), expected)
    # Either kind on its own leaves more.
    for dropout in (model.dropout, *(block.dropout for block in model.blocks)):
        dropout.p = 0.0
        assert not torch.allclose(model(tokens(B, T), codes()), expected)
        dropout.p = 1.0


class TestCausalConv1d:
    @pytest.mark.parametrize(("width", "dilation"), [(2, 1), (3, 1), (3, 4), (4, 3)])
    def test_it_is_the_sum_over_its_window(self, width: int, dilation: int) -> None:
        conv, x = CausalConv1d(C, width, dilation).double(), torch.randn(B, 9, C).double()
        memory = (width - 1) * dilation
        outputs, _ = conv(x, x.new_zeros(B, memory, C))
        for t in range(9):
            by_hand = conv.conv.bias.expand(B, C)
            for k in range(width):
                age = (width - 1 - k) * dilation
                if t >= age:
                    by_hand = by_hand + x[:, t - age] @ conv.conv.weight[:, :, k].T
            torch.testing.assert_close(outputs[:, t], by_hand)

    @pytest.mark.parametrize(("width", "dilation"), [(2, 1), (3, 1), (3, 4), (4, 3)])
    @pytest.mark.parametrize("length", [1, 9])
    def test_it_is_torch_s_own(self, width: int, dilation: int, length: int) -> None:
        """So are its gradients: on a GPU, torch's convolution takes its place."""
        conv = CausalConv1d(C, width, dilation).double()
        x = torch.randn(B, length, C, dtype=torch.float64, requires_grad=True)
        past = torch.randn(B, conv.memory, C, dtype=torch.float64)
        ours, _ = conv(x, past)
        theirs = conv.conv(torch.cat([past, x], dim=1).transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(ours, theirs)
        weights = torch.randn_like(ours)
        for own, expected in zip(
            *(torch.autograd.grad(y, [x, *conv.parameters()], weights) for y in (ours, theirs)),
            strict=True,
        ):
            torch.testing.assert_close(own, expected)

    @given(read=st.integers(1, 10), width=st.integers(2, 4), dilation=st.integers(1, 4))
    def test_it_goes_on_where_it_stopped(self, read: int, width: int, dilation: int) -> None:
        """However few tokens it read before, fewer than it remembers too."""
        torch.manual_seed(0)
        conv, x = CausalConv1d(C, width, dilation).double(), torch.randn(B, 11, C).double()
        start = x.new_zeros(B, conv.memory, C)
        whole, last = conv(x, start)
        first, past = conv(x[:, :read], start)
        second, past = conv(x[:, read:], past)
        torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
        assert torch.equal(past, last)


class TestResidualBlock:
    def test_what_it_finds_is_added(self) -> None:
        block, x = ResidualBlock(C, dilation=2), torch.randn(B, T, C)
        past = torch.zeros(B, 4, C // 2)
        assert not torch.allclose(block(x, past)[0], x)
        nn.init.zeros_(block.up.weight)
        nn.init.zeros_(block.up.bias)
        assert torch.equal(block(x, past)[0], x)

    def test_it_sees_the_shape_of_a_position_not_its_size(self) -> None:
        """The normalisation is over the channels of each position on its own."""
        block, past = ResidualBlock(C).double(), torch.zeros(B, 2, C // 2).double()
        x = torch.randn(B, T, C).double() * 10
        factors = torch.rand(B, T, 1).double() + 1
        added, added_to_scaled = block(x, past)[0] - x, block(x * factors, past)[0] - x * factors
        torch.testing.assert_close(added_to_scaled, added, rtol=1e-4, atol=1e-4)

    def test_a_nonlinearity_follows_each_narrow_layer(self) -> None:
        block, x, past = ResidualBlock(C), torch.randn(B, T, C), torch.zeros(B, 2, C // 2)
        said, heard = [], []
        block.down.register_forward_hook(lambda _, given, out: said.append(out))
        block.conv.register_forward_hook(lambda _, given, out: said.append(out[0]))
        for layer in (block.conv, block.up):
            layer.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
        block(x, past)
        torch.testing.assert_close(heard[0], nn.functional.gelu(said[0]))
        torch.testing.assert_close(heard[1], nn.functional.gelu(said[1]))


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dilations": []}, "at least one block: an empty list"),
            ({"dilations": [1, 0, 2]}, "a dilation must be at least 1, not 0"),
            ({"dilations": [-2]}, "a dilation must be at least 1, not -2"),
            ({"width": 1}, "width must be at least 2, .*, not 1"),
            ({"dilations": "tiny"}, "'tiny': choose small, medium, large, very_large, or numbers"),
            ({"word_dropout": 1.5}, "word_dropout must lie in"),
            ({"word_dropout": 0.5, "unk_id": None}, "needs an unknown mark"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DilatedConvDecoder(V, E, C, **options)

    @pytest.mark.parametrize("channels", [1, 0, -4])
    def test_too_few_channels(self, channels: int) -> None:
        with pytest.raises(ValueError, match=f"channels must be at least 2, .*, not {channels}"):
            DilatedConvDecoder(V, E, channels)

    def test_two_channels_are_enough(self) -> None:
        assert DilatedConvDecoder(V, E, 2)(tokens(B, T)).shape == (B, T, 2)
