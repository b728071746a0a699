"""Train the map of digits for chapter 1's page and write it there: python tools/live_digits.py.

Two files of book/_static/live: digits.js with the decoder's weights in 8 bits, a scale for each
row, and with the codes of real digits; digits.png, which stands there without JavaScript.
"""

import base64
import json
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import tutvae

FOLDER = Path(__file__).resolve().parents[1] / "book" / "_static" / "live"
EDGE, POINTS, ZOOM = 2.5, 14, 3  # as in map.js; the picture's digits a side, and their enlargement


def trained() -> tutvae.VAE:
    """Returns a VAE of the binary digits with a code of two numbers, as in chapter 2."""
    train = (tutvae.digits().train.pixels > 0.5).float()
    torch.manual_seed(0)
    model = tutvae.VAE(data_size=64, latent_size=2, hidden_sizes=(200,))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        for rows in torch.randperm(len(train)).split(50):
            optimizer.zero_grad()
            model(train[rows]).loss().backward()
            optimizer.step()
    return model


def in_8_bits(layer: nn.Linear) -> dict[str, object]:
    """Returns a layer for JSON, each row rounded to 127 steps up to its largest weight."""
    scale = layer.weight.detach().abs().amax(1) / 127
    weight = (layer.weight.detach() / scale[:, None]).round().to(torch.int8)
    return {
        "weight": base64.b64encode(weight.numpy().tobytes()).decode("ascii"),
        "scale": [round(value, 8) for value in scale.tolist()],
        "bias": [round(value, 5) for value in layer.bias.tolist()],
    }


def picture(model: tutvae.VAE) -> Image.Image:
    """Returns the map: what the decoder paints at the middle of each of its cells."""
    steps = EDGE * ((2 * torch.arange(POINTS) + 1) / POINTS - 1)
    codes = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # down the rows, upwards is larger
    with torch.no_grad():
        black = model.decoder(codes).probs.view(POINTS, POINTS, 8, 8)
    black = nn.functional.pad(black, (1, 1, 1, 1))  # a white frame, so that one sees each digit
    tiled = 255 * (1 - black.transpose(1, 2).flatten(2).flatten(0, 1))
    image = Image.fromarray(tiled.round().to(torch.uint8).numpy())
    return image.resize((ZOOM * image.width, ZOOM * image.height), Image.Resampling.NEAREST)


def main() -> None:
    """Writes both files."""
    model, test = trained(), tutvae.digits().test
    layers = [in_8_bits(layer) for layer in (model.decoder.hidden[0], model.decoder.logits)]
    with torch.no_grad():
        means = model.posterior((test.pixels > 0.5).float()).loc
    codes = [
        [round(x, 2), round(y, 2), digit]
        for (x, y), digit in zip(means.tolist(), test.labels.tolist(), strict=True)
    ]
    content = json.dumps({"layers": layers, "codes": codes}, separators=(",", ":"))
    script = f"(globalThis.tutvaeLive ??= {{}}).digits = {content};\n"
    (FOLDER / "digits.js").write_text(script, encoding="ascii")
    picture(model).save(FOLDER / "digits.png", optimize=True)


if __name__ == "__main__":
    main()
