"""The words that chapter 6's page colours are those that reach the decoder's output."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae import DilatedConvDecoder
from tutvae.models import DILATIONS

PAGE = Path("notebooks", "06_dilated_convolutions.html")
NETWORKS = [[1], [1, 1, 1], [1, 2, 4], [2, 5], [1, 2, 4, 8, 16]]


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
    phone: Any, dilations: list[int]
) -> None:
    ways = phone.evaluate("dilations => tutvaeLive.ways(dilations)", dilations)
    assert len(ways) == DilatedConvDecoder(9, 8, 8, dilations=dilations).receptive_field
    assert sum(ways) == 3 ** len(dilations)
    assert [count > 0 for count in ways] == reached(dilations, len(ways))


@pytest.mark.browser
def test_a_reader_moves_on_a_phone(phone: Any) -> None:
    for number, name in ((2, "small"), (4, "medium"), (5, "large"), (6, "very_large")):
        phone.select_option("#field-network", str(number))
        field = DilatedConvDecoder(9, 8, 8, dilations=name).receptive_field
        assert phone.inner_text("#field option:checked").split(" (")[0] == " ".join(
            map(str, DILATIONS[name])
        )
        said = phone.inner_text("#field [data-part=status]")
        assert said.startswith(f"The receptive field is {field}.")
    phone.select_option("#field-network", "2")
    phone.focus("#field-word")
    phone.keyboard.press("Home")
    assert phone.locator("#field .live-saved").count() == 1, "the start mark alone"
    phone.keyboard.press("End")
    assert phone.locator("#field .live-saved").count() == 15
    spoken = phone.get_attribute("#field-word", "aria-valuetext")
    assert spoken.endswith(phone.inner_text("#field [data-part=status]"))
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.complaints == []
