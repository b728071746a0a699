"""The short decoder of chapter 6 computes what the package's class of the same name does."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nbformat import NotebookNode
from torch import Tensor, nn

import tutvae
from tutvae.models import Decoder

V, E, C, Z = 11, 5, 8, 3
NAMES = ("CausalConv1d", "ResidualBlock", "DilatedConvDecoder")
SHAPES = [((1, 2, 4), 3, Z), ((1, 3), 2, Z), ((2, 1), 4, 0)]
# A change of any term, and how it would read.
MUTANTS = {
    "a past one too short": ("(width - 1) * dilation\n", "(width - 1) * dilation - 1\n"),
    "neighbours": ("width, dilation=dilation)", "width)"),
    "the past of the outputs": ("seen[:, -self.memory :]", "out[:, -self.memory :]"),
    "the past that has been": ("return out, seen[:, -self.memory :]", "return out, past"),
    "no normalisation below": ("self.down(self.norm(x))", "self.down(x)"),
    "no non-linearity before": ("F.gelu(self.down(self.norm(x)))", "self.down(self.norm(x))"),
    "no non-linearity after": ("self.up(F.gelu(seen))", "self.up(seen)"),
    "no residual connection": ("return x + self.up", "return self.up"),
    "another width": ("ResidualBlock(C, width, d)", "ResidualBlock(C, 3, d)"),
    "blocks upside down": ("for d in dilations)", "for d in reversed(dilations))"),
    "no code": ("+ share[:, None]", "+ 0 * share[:, None]"),
    "a code with a bias": ("nn.Linear(Z, C, bias=False)", "nn.Linear(Z, C)"),
    "a past that is lost": ("x, pasts[n] = block", "x, _ = block"),
    "a share that is lost": ("(share, *pasts)", "(0 * share, *pasts)"),
    "no normalisation above": ("return self.norm(x), (", "return x, ("),
    "a past that is not zero": ("share.new_zeros(B", "share.new_ones(B"),
    "the old state": ("hidden, state = self.read", "hidden, _ = self.read"),
}


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The chapter's classes, in their order."""
    tagged = [
        cell.source
        for name in NAMES
        for cell in chapters[6].cells
        if f"behaves-as:{name}" in cell.metadata.get("tags", [])
    ]
    assert len(tagged) == 4, "the decoder is in two cells"
    return "\n\n".join(tagged)


def chapters_class(source: str) -> Any:
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "Decoder": Decoder}
    exec(source, names)
    return names["DilatedConvDecoder"]


def computed(decoder: Decoder, latent_size: int) -> list[Tensor]:
    """Hidden states, logits of steps, the last state and all gradients."""
    torch.manual_seed(2)
    tokens = torch.randint(0, V, (4, 20))
    z = torch.randn(4, latent_size, requires_grad=True) if latent_size else None
    hidden = decoder(tokens, z)
    state = decoder.start(z, 4)
    logits = []
    for token in tokens.T[:15]:
        one, state = decoder.step(token, state)
        logits.append(one)
    stepped = torch.stack(logits, 1)
    decoder.zero_grad()
    (hidden.pow(2).sum() + stepped.pow(2).sum()).backward()
    gradients = [p.grad for _, p in sorted(decoder.named_parameters())]
    assert all(g is not None for g in gradients)
    return [hidden, stepped, *state, *gradients, *([z.grad] if z is not None else [])]


def agree(source: str) -> bool:
    """Whether chapter and package have the same parameters and compute the same from them."""
    for dilations, width, latent_size in SHAPES:
        sizes = V, E, C, latent_size
        torch.manual_seed(0)
        theirs = tutvae.DilatedConvDecoder(*sizes, dilations=dilations, width=width)
        for norm in (x for x in theirs.modules() if isinstance(x, nn.LayerNorm)):
            nn.init.normal_(norm.weight)  # else one normalisation would hide another
        try:
            ours = chapters_class(source)(*sizes, dilations=dilations, width=width)
            ours.load_state_dict(theirs.state_dict())
            pairs = zip(computed(ours, latent_size), computed(theirs, latent_size), strict=True)
            if not all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in pairs):
                return False
        except (RuntimeError, ValueError, AssertionError):
            return False
    return True


def test_the_chapter_computes_what_the_package_does(source: str) -> None:
    assert agree(source)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, mutant: str) -> None:
    term, changed = MUTANTS[mutant]
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    assert not agree(source.replace(term, changed))


def test_the_decoder_is_read_in_forty_lines(source: str) -> None:
    decoder = source[source.index("class ConvLayers") :]
    lines = [line.strip() for line in decoder.splitlines()]
    assert sum(bool(line) and not line.startswith('"""') for line in lines) <= 40
