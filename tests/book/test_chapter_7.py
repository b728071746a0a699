"""What chapter 7 makes forget sees the last words, and those as the whole model would."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nbformat import NotebookNode
from torch import nn

STARTS = "def forgetful(", "def windowed_attention("
B, T, E, H = 2, 9, 3, 4
# A change of any term, and how it would read.
MUTANTS = {
    "a word too many": ("(0, 0, R - 1, 0)", "(0, 0, R, 0)"),
    "a step of two": ("unfold(1, R, 1)", "unfold(1, R, 2)"),
    "documents mixed": ("repeat_interleave(T, 1)", "repeat(1, T, 1)"),
    "the first state": ("hidden[:, -1]", "hidden[:, 0]"),
    "words in another order": ("permute(0, 1, 3, 2)", "permute(0, 1, 3, 2).flip(2)"),
    "the code forgotten": ("lstm(windows, tuple(states))", "lstm(windows)"),
    "a wider window": ("back < W", "back <= W"),
    "a look ahead": ("back >= 0", "back >= -1"),
    "its own word left out": ("back >= 0", "back > 0"),
}


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The cells of the chapter that define both."""
    found = [cell.source for cell in chapters[7].cells if cell.source.startswith(STARTS)]
    assert len(found) == len(STARTS)
    return "\n\n".join(found)


def defined(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"torch": torch, "F": F}
    exec(source, names)
    return names


def reads_the_last_words(names: dict[str, Any]) -> bool:
    """By reading each window alone, where it is full."""
    torch.manual_seed(0)
    lstm = nn.LSTM(E, H, batch_first=True)
    words, first = torch.randn(B, T, E), (torch.randn(1, B, H), torch.randn(1, B, H))
    for R in (1, 4, T):
        found = names["forgetful"](lstm, words, first, R)
        if found.shape != (B, T, H):
            return False
        for t in range(R - 1, T):
            alone, _ = lstm(words[:, t - R + 1 : t + 1], first)
            if not torch.allclose(found[:, t], alone[:, -1], atol=1e-5):
                return False
    return True


def attends_to_the_last_words(names: dict[str, Any]) -> bool:
    """By the softmax of each position over its window."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, B, 2, T, E)
    for W in (1, 4, T):
        found = names["windowed_attention"](q, k, v, W)
        for t in range(T):
            seen = slice(max(0, t - W + 1), t + 1)
            scores = (q[:, :, t : t + 1] @ k[:, :, seen].mT) / E**0.5
            alone = (scores.softmax(-1) @ v[:, :, seen])[:, :, 0]
            if not torch.allclose(found[:, :, t], alone, atol=1e-5):
                return False
    return True


def test_both_see_the_last_words(source: str) -> None:
    names = defined(source)
    assert reads_the_last_words(names)
    assert attends_to_the_last_words(names)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, mutant: str) -> None:
    term, changed = MUTANTS[mutant]
    assert source.count(term) == 1, f"the chapter no longer has {term!r} once"
    names = defined(source.replace(term, changed))
    try:
        agrees = reads_the_last_words(names) and attends_to_the_last_words(names)
    except RuntimeError:
        agrees = False
    assert not agrees
