"""The map of digits on chapter 1's page paints what PyTorch decodes from the same 8-bit weights."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tutvae

FOLDER = Path("book", "_static", "live")
PAGE = Path("notebooks", "01_basic_vae.html")
CODES = torch.cartesian_prod(torch.linspace(-2.5, 2.5, 15), torch.linspace(-2.5, 2.5, 15))


@pytest.fixture(scope="module")
def brought(root: Path) -> Any:
    """What digits.js brings into the page."""
    script = (root / FOLDER / "digits.js").read_text(encoding="ascii")
    return json.loads(script.split(".digits = ")[1].removesuffix(";\n"))


@pytest.fixture(scope="module")
def model(brought: Any) -> tutvae.VAE:
    """A VAE with the decoder of digits.js."""
    model = tutvae.VAE(data_size=64, latent_size=2, hidden_sizes=(200,))
    layers = (model.decoder.hidden[0], model.decoder.logits)
    for layer, stored in zip(layers, brought["layers"], strict=True):
        numbers = np.frombuffer(base64.b64decode(stored["weight"]), np.int8)
        weight = torch.from_numpy(numbers.copy()).view(layer.weight.shape)
        layer.weight.data = weight * torch.tensor(stored["scale"])[:, None]
        layer.bias.data = torch.tensor(stored["bias"])
    return model


def test_what_the_page_loads_is_small(root: Path) -> None:
    loaded = ("digits.js", "digits.png", "map.js", "digits.html")
    assert sum((root / FOLDER / name).stat().st_size for name in loaded) < 100_000


def test_the_codes_are_those_of_the_real_digits(brought: Any) -> None:
    labels = tutvae.digits().test.labels.tolist()
    assert [digit for _, _, digit in brought["codes"]] == labels


def test_the_decoder_explains_real_digits_from_their_codes(brought: Any, model: tutvae.VAE) -> None:
    codes = torch.tensor(brought["codes"])[:, :2]
    test = (tutvae.digits().test.pixels > 0.5).float()
    with torch.no_grad():
        cost = -model.log_likelihood(test, codes).mean().item()
    assert cost < 20, "the coins of chapter 1 need 24.5 nats"


@pytest.mark.browser
def test_the_page_paints_what_pytorch_decodes(phone: Any, model: tutvae.VAE) -> None:
    painted = phone.evaluate("codes => codes.map(tutvaeLive.paint)", CODES.tolist())
    with torch.no_grad():
        expected = model.decoder(CODES).probs
    assert torch.allclose(torch.tensor(painted), expected, atol=1e-4)


@pytest.mark.browser
def test_a_reader_drags_on_a_phone_and_moves_by_keys(phone: Any) -> None:
    ground = phone.locator("[data-part=ground]")
    ground.scroll_into_view_if_needed()
    box = ground.bounding_box()
    phone.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    phone.mouse.down()
    phone.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    phone.mouse.up()
    values = [float(phone.input_value(f"#digits-{name}")) for name in ("first", "second")]
    assert values == pytest.approx([2, 2], abs=0.06)
    phone.focus("#digits-first")
    phone.keyboard.press("Home")
    assert phone.input_value("#digits-first") == "-2.5"
    said = phone.get_attribute("#digits-first", "aria-valuetext")
    assert said.startswith("-2.50: of the 5 nearest real digits")
    assert phone.inner_text("#digits [data-part=status]").startswith("Here, of the 5 nearest")
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.complaints == []


@pytest.mark.browser
def test_the_picture_shows_what_the_pen_paints(phone: Any, model: tutvae.VAE) -> None:
    drawn = phone.evaluate(
        """() => {
          const set = (name, value) => {
            const slider = document.getElementById(`digits-${name}`);
            slider.value = value;
            slider.dispatchEvent(new Event("input"));
          };
          set("first", 1.5);
          set("second", -1);
          const paper = document.querySelector("#digits canvas").getContext("2d");
          return [...paper.getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 0);
        }"""
    )
    with torch.no_grad():
        expected = 255 * (1 - model.decoder(torch.tensor([1.5, -1.0])).probs)
    assert np.abs(np.array(drawn) - expected.numpy()).max() <= 1


@pytest.mark.browser
def test_without_javascript_the_picture_stands_there(without_scripts: Any) -> None:
    assert without_scripts.is_visible("#digits img")
    assert not without_scripts.is_visible("#digits form")
    assert not without_scripts.is_visible("#digits canvas")
