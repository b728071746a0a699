"""The book's figures: one function each, which draws on given or new Axes and returns them.

Images are rows of pixels in [0, 1]; `height` is how many rows of pixels one has.

>>> images = tutvae.digits().test.pixels
>>> ax = tutvae.plots.image_grid(images[:10], height=8, columns=5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutvae.evaluation.report import ACTIVE_UNIT_VARIANCE
from tutvae.models.protocols import evaluating
from tutvae.training.loop import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tutvae.models import VAE

COLORS = 5
BLUE, ORANGE, GREEN, RED, GREY = "#2f5d8c", "#d9822b", "#4c8c5c", "#b5403a", "#7a7f87"


def use_style() -> None:
    """Set the book's look: sizes, colours, and an opaque background for dark pages."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", palette=[BLUE, ORANGE, GREEN, RED, GREY])
    plt.style.use(Path(__file__).with_name("book.mplstyle"))


def loss_curves(history: History, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draw the two terms of the bound in what `fit` returned, on two Axes. Chapter 1."""
    axes = _axes(axes, columns=2)
    for ax, term in zip(axes, ("reconstruction", "kl"), strict=True):
        ax.plot(history["epoch"], history[f"train_{term}"], label="training")
        if f"valid_{term}" in history.records[0]:
            ax.plot(history["epoch"], history[f"valid_{term}"], "--", label="validation")
        ax.set(title=term.replace("kl", "KL"), xlabel="epoch", ylabel="nats an example")
        ax.legend()
    return axes


def image_grid(pixels: Tensor, height: int, columns: int, ax: Axes | None = None) -> Axes:
    """Tile images `[N, D]`, row by row, so many columns wide.

    An N that is not a multiple of `columns`, or a D not of `height`, is a ValueError. Chapter 1.
    """
    N, D = pixels.shape
    if N % columns or D % height:
        raise ValueError(f"cannot tile {N} images of {D} pixels as {columns} columns of {height}")
    width = D // height
    # A white line between neighbours.
    padded = torch.nn.functional.pad(pixels.detach().cpu().view(N, height, width), (0, 1, 0, 1))
    rows = padded.view(N // columns, columns, height + 1, width + 1)
    tiled = rows.transpose(1, 2).flatten(2).flatten(0, 1).numpy()
    ax = _axes(ax)
    ax.imshow(tiled, cmap="Greys", vmin=0, vmax=1)
    ax.axis("off")
    return ax


def reconstructions(
    originals: Tensor, reconstructed: Tensor, height: int, ax: Axes | None = None
) -> Axes:
    """Draw images `[N, D]`, and under each the pixel probabilities at its code. Chapter 1."""
    ax = image_grid(torch.cat([originals, reconstructed]), height, len(originals), ax)
    for row, name in enumerate(("image", "decoded")):
        ax.text(-1, (row + 0.5) * (height + 1), name, ha="right", va="center")
    return ax


def interpolation_strip(
    pixels: Tensor, weights: Tensor, height: int, ax: Axes | None = None
) -> Axes:
    """Draw the images along one or several paths of codes, `[P * A, D]`, path by path.

    The weights a, `[A]`, stand below. Chapter 2.
    """
    ax = image_grid(pixels, height, len(weights), ax)
    step = pixels.shape[1] // height + 1
    bottom = len(pixels) // len(weights) * (height + 1)
    for column, weight in enumerate(weights.tolist()):
        ax.text((column + 0.45) * step, bottom, f"{weight:.2f}", ha="center", va="top")
    return ax


def latent_scatter(codes: Tensor, labels: Tensor, ax: Axes | None = None) -> Axes:
    """Scatter codes `[N, 2]`, coloured by class `[N]`; another shape is a ValueError. Chapter 2."""
    if codes.shape[1] != 2:
        raise ValueError(f"a scatter needs codes [N, 2], not {list(codes.shape)}")
    ax = _axes(ax)
    x, y = codes.cpu().numpy().T
    points = ax.scatter(x, y, c=labels.cpu().numpy(), s=9, cmap="tab10", linewidths=0)
    classes = labels.unique().tolist()
    handles, names = points.legend_elements(num=classes)
    ax.legend(handles, names, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    return ax


def manifold(model: VAE, height: int, points: int = 18, ax: Axes | None = None) -> Axes:
    """Decode a grid over a code of Z = 2, spaced so that the prior's mass is even.

    It has so many `points` a side.

    Source: Kingma & Welling (2014), figure 4. Chapter 2.
    """
    quantiles = (torch.arange(points) + 0.5) / points
    with evaluating(model) as device:
        z = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
        # Upwards is larger, as in a scatter: rows run through z_2 from the top down.
        grid = torch.stack(torch.meshgrid(z, z.flip(0), indexing="xy"), dim=-1)
        pixels = model.decoder(grid.view(-1, 2).to(device)).probs
    return image_grid(pixels, height, points, ax)


def dimension_bars(
    kl: Sequence[float], variances: Tensor, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Draw what each latent dimension carries, largest first, on two Axes.

    That is the `kl`, Z values in nats as in `Report.kl_per_dimension`, and the variance of the
    posterior means over the data, `[Z]`. Chapter 2.
    """
    axes = _axes(axes, columns=2)
    ranks = range(1, len(kl) + 1)
    axes[0].bar(ranks, sorted(kl, reverse=True), color=BLUE)
    axes[0].set(title="KL", xlabel="dimension, by rank", ylabel="nats an example")
    axes[1].bar(ranks, variances.sort(descending=True).values.cpu().numpy(), color=BLUE)
    axes[1].axhline(ACTIVE_UNIT_VARIANCE, color=RED, linestyle="--", label="threshold")
    axes[1].set(title="variance of the posterior mean", xlabel="dimension, by rank", yscale="log")
    axes[1].legend()
    return axes


def rate_distortion(
    rates: Sequence[float],
    distortions: Sequence[float],
    names: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw reconstruction (distortion) against KL (rate), over lines of equal bound.

    Each model is a point with a name; both are in nats an example.

    Source: Alemi et al. (2018), figure 1. Chapter 2.
    """
    ax = _axes(ax)
    ax.plot(rates, distortions, "o-")
    for rate, distortion, name in zip(rates, distortions, names, strict=True):
        ax.annotate(name, (rate, distortion), xytext=(6, 6), textcoords="offset points")
    ax.margins(0.12)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())  # the lines below must not widen the view
    for bound in range(0, int(max(rates) + max(distortions)) + 10, 2):
        ax.axline((0, bound), slope=-1, color=GREY, linewidth=0.6, alpha=0.5, zorder=0)
    ax.set(xlabel="rate: KL, nats an example", ylabel="distortion: reconstruction, nats")
    return ax


def confusion(
    table: np.ndarray, row_names: Sequence[str], column_names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw a table of counts: what became of the documents of each class.

    The table is `[K, C]`, of K classes and C predictions or clusters, as in `ClusterReport.table`.
    A cell's shade is its share of the row, its number the count. Names that are not one a row and
    one a column are a ValueError. Chapter 9.
    """
    import seaborn as sns

    if table.shape != (len(row_names), len(column_names)):
        raise ValueError(
            f"a table {list(table.shape)} does not go with {len(row_names)} names of rows "
            f"and {len(column_names)} of columns"
        )
    ax = _axes(ax)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)  # a class may have no documents
    names = {"xticklabels": list(column_names), "yticklabels": list(row_names)}
    sns.heatmap(
        shares, vmin=0, vmax=1, annot=table, fmt="d", cmap="Blues", cbar=False, ax=ax, **names
    )
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    return ax


def accuracy_by_labels(
    curves: Mapping[str, Mapping[int, Sequence[float]]],
    bayes: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against the number of labels, a line a method.

    `curves` holds, for each method, the accuracies of all seeds at each number of labels: the line
    is their mean, the band runs from the lowest to the highest. `bayes` is that of the best
    classifier that there can be, where it is known. Chapter 8.
    """
    ax = _axes(ax)
    for n, (method, accuracies) in enumerate(curves.items()):
        counts = sorted(accuracies)
        runs = [accuracies[count] for count in counts]
        style = ("o-", "s--", "^:")[n // COLORS % 3]  # then the colours come again
        (line,) = ax.plot(counts, [np.mean(run) for run in runs], style, label=method)
        lowest, highest = [min(run) for run in runs], [max(run) for run in runs]
        ax.fill_between(counts, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0)
    if bayes is not None:
        ax.axhline(bayes, color="black", linestyle="--", label="Bayes-optimal")
    ax.set(xscale="log", xlabel="labels", ylabel="accuracy")
    counts = sorted({count for accuracies in curves.values() for count in accuracies})
    ax.set_xticks(counts, labels=[f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def _axes(given: Any, columns: int = 1) -> Any:
    """The Axes to draw on: those that are given, or so many new ones side by side."""
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns)[1] if given is None else given
