"""The words that chapter 6's page colours are those that reach the decoder's output."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae import DilatedConvDecoder
from tutvae.models import DILATIONS

PAGE = Path("notebooks", "06_dilated_convolutions.html")
NETWORKS = [[1], [1, 1, 1], [1, 2, 4], [2, 5], [1, 2, 4, 8, 16]]


@pytest.fixture(scope="module")
def page(browser: Any, build: Path) -> Iterator[Any]:
    """The chapter, opened as a file on a phone; complaints are kept in `page.complaints`."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto((build / PAGE).as_uri())
    yield page
    page.close()


def reached(dilations: list[int], length: int) -> list[bool]:
    """By gradient: which inputs, the last first, reach the last output of a decoder."""
    torch.manual_seed(0)
    decoder = DilatedConvDecoder(9, 8, 8, dilations=dilations).double().eval()
    tokens = torch.randint(4, 9, (1, length))
    vectors = decoder.embedding(tokens).detach().requires_grad_()
    handle = decoder.embedding.register_forward_hook(lambda *_: vectors)
    out = decoder(tokens)[0, -1]
    (out * torch.randn_like(out)).sum().backward()
    handle.remove()
    assert vectors.grad is not None
    return (vectors.grad[0].abs().sum(1).flip(0) > 0).tolist()


@pytest.mark.browser
@pytest.mark.parametrize("dilations", NETWORKS)
def test_the_ways_lead_from_the_inputs_that_reach_the_output(
    page: Any, dilations: list[int]
) -> None:
    ways = page.evaluate("dilations => tutvaeLive.ways(dilations)", dilations)
    assert len(ways) == DilatedConvDecoder(9, 8, 8, dilations=dilations).receptive_field
    assert sum(ways) == 3 ** len(dilations)
    assert [count > 0 for count in ways] == reached(dilations, len(ways))


@pytest.mark.browser
def test_a_reader_moves_on_a_phone(page: Any) -> None:
    for number, name in ((2, "small"), (4, "medium"), (5, "large"), (6, "very_large")):
        page.select_option("#field-network", str(number))
        field = DilatedConvDecoder(9, 8, 8, dilations=name).receptive_field
        assert page.inner_text("#field option:checked").split(" (")[0] == " ".join(
            map(str, DILATIONS[name])
        )
        said = page.inner_text("#field [data-part=status]")
        assert said.startswith(f"The receptive field is {field}.")
    page.select_option("#field-network", "2")
    page.focus("#field-word")
    page.keyboard.press("Home")
    assert page.locator("#field .live-saved").count() == 1, "the start mark alone"
    page.keyboard.press("End")
    assert page.locator("#field .live-saved").count() == 15
    spoken = page.get_attribute("#field-word", "aria-valuetext")
    assert spoken.endswith(page.inner_text("#field [data-part=status]"))
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.complaints == []
