"""Write what chapter 5's page shows of the recorded remedies: python tools/live_remedies.py.

Two files of book/_static/live: remedies.js with the course of each remedy's run of seed 0, and
remedies.png, which stands there without JavaScript.
"""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

from tutvae import plots

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "_static" / "live"
RECORD = ROOT / "results" / "remedies" / "reviews.json"
NAMES = {
    "none": "none",
    "linear": "linear ramp",
    "cyclical": "cyclical ramp",
    "beta_0_4": "weight 0.4 for good",
    "word_dropout": "word dropout 0.38, ramp",
    "inputless": "inputless, ramp",
    "free_bits": "free bits, 1/8 a dimension",
    "free_bits_in_total": "free bits, 4 in total",
    "rate": "held rate of 4",
    "pooling": "max pooling, ramp",
    "batch_norm": "normalised means",
    "autoencoder_first": "autoencoder first",
    "aggressive": "aggressive encoder",
    "skip": "skip connections",
}
COLUMNS = {"weights": "kl_weight", "kl": "kl", "reconstruction": "reconstruction"}


def runs() -> list[dict[str, Any]]:
    """Returns each remedy's course in training, to three digits."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))
    curves = {row["remedy"]: row["curve"] for row in rows if "curve" in row}
    return [
        {"name": said}
        | {key: [float(f"{x:.3g}") for x in curves[name][own]] for key, own in COLUMNS.items()}
        for name, said in NAMES.items()
        if name in curves
    ]


def picture(shown: list[dict[str, Any]], updates: list[int]) -> None:
    """Draws the courses of two runs."""
    plots.use_style()
    titles = ("weight of the KL", "KL, nats", "reconstruction, nats")
    fig, axes = plt.subplots(3, 1, figsize=(6.4, 5.6), sharex=True)
    for ax, column, title in zip(axes, COLUMNS, titles, strict=True):
        for run, color in zip(shown, (plots.BLUE, plots.GREY), strict=True):
            ax.plot(updates[: len(run[column])], run[column], color=color, label=run["name"])
        ax.set(title=title, xscale="log", yscale="linear" if column == "weights" else "log")
    axes[0].legend()
    axes[-1].set(xlabel="update")
    fig.savefig(drawn := io.BytesIO(), dpi=100, facecolor="white")
    # 64 colours are enough for lines, and a quarter of the bytes.
    Image.open(drawn).convert("RGB").quantize(64).save(FOLDER / "remedies.png", optimize=True)


def main() -> None:
    """Writes both files."""
    found = runs()
    content = json.dumps(found, separators=(",", ":"))
    script = f"(globalThis.tutvaeLive ??= {{}}).remedies = {content};\n"
    (FOLDER / "remedies.js").write_text(script, encoding="ascii")
    points = max(len(run["kl"]) for run in found)
    updates = [i + 1 if i < 100 else 100 + 10 * (i - 99) for i in range(points)]
    picture([run for run in found if run["name"] in ("linear ramp", "none")][::-1], updates)


if __name__ == "__main__":
    main()
