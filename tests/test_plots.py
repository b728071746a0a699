from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutvae import plots
from tutvae.models import VAE
from tutvae.training.loop import History


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def history(valid: bool) -> History:
    columns = ["train_reconstruction", "train_kl"]
    columns += ["valid_reconstruction", "valid_kl"] if valid else []
    return History([{"epoch": e} | dict.fromkeys(columns, 10.0 / e) for e in (1, 2, 3)])


@pytest.mark.parametrize(("valid", "lines"), [(False, 1), (True, 2)])
def test_loss_curves_draw_each_term_on_axes_of_its_own(valid: bool, lines: int) -> None:
    axes = plots.loss_curves(history(valid))
    assert [ax.get_title() for ax in axes] == ["reconstruction", "KL"]
    for ax in axes:
        assert len(ax.lines) == lines
        assert ax.get_ylabel() == "nats an example", "an axis says its unit"
        np.testing.assert_allclose(ax.lines[0].get_data(), [[1, 2, 3], [10, 5, 10 / 3]])


def test_loss_curves_draw_on_given_axes() -> None:
    given = plt.subplots(1, 2)[1]
    assert plots.loss_curves(history(False), given) is given


def test_an_image_grid_puts_images_row_by_row_with_a_white_line_between() -> None:
    pixels = torch.arange(1.0, 7).div(10).repeat_interleave(6).view(6, 6)  # 2 x 3 pixels each
    tiled = plots.image_grid(pixels, height=2, columns=3).images[0].get_array()
    assert tiled.shape == (2 * 3, 3 * 4)
    np.testing.assert_allclose(tiled[0:2, 0:3], 0.1)
    np.testing.assert_allclose(tiled[0:2, 4:7], 0.2)
    np.testing.assert_allclose(tiled[3:5, 0:3], 0.4)
    assert (tiled[2] == 0).all(), "between the rows"
    assert (tiled[:, 3] == 0).all(), "and between the columns"


@pytest.mark.parametrize(("count", "size"), [(5, 6), (6, 7)])
def test_images_that_do_not_tile_are_one_clear_error(count: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"cannot tile {count} images of {size} pixels"):
        plots.image_grid(torch.zeros(count, size), height=2, columns=3)


def test_reconstructions_lie_below_their_images() -> None:
    ax = plots.reconstructions(torch.zeros(4, 6), torch.ones(4, 6), height=2)
    tiled = ax.images[0].get_array()
    assert tiled[0:2].max() == 0
    assert tiled[3:5, 0:3].min() == 1
    assert [text.get_text() for text in ax.texts] == ["image", "decoded"]


def test_an_interpolation_strip_writes_the_weight_under_each_column() -> None:
    ax = plots.interpolation_strip(torch.zeros(6, 6), torch.tensor([1.0, 0.5, 0.0]), height=2)
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.50", "0.00"]


def test_a_latent_scatter_shows_every_code_and_names_every_class() -> None:
    codes, labels = torch.randn(20, 2), torch.arange(20) % 4
    ax = plots.latent_scatter(codes, labels)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), codes, rtol=1e-6)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [name.strip("$").removeprefix("\\mathdefault{").rstrip("}") for name in names] == [
        "0",
        "1",
        "2",
        "3",
    ]


def test_a_scatter_of_other_than_two_dimensions_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"a scatter needs codes \[N, 2\], not \[20, 3\]"):
        plots.latent_scatter(torch.randn(20, 3), torch.zeros(20))


def test_the_manifold_runs_through_the_prior_s_quantiles_up_and_to_the_right() -> None:
    """A decoder whose first pixel follows z_1 and whose second follows z_2 shows the directions."""
    model = VAE(data_size=2, latent_size=2, hidden_sizes=())
    with torch.no_grad():
        model.decoder.logits.weight.copy_(torch.eye(2))
        model.decoder.logits.bias.zero_()
    tiled = plots.manifold(model, height=1, points=5).images[0].get_array()
    first, second = tiled[::2, ::3], tiled[::2, 1::3]
    assert (np.diff(first, axis=1) > 0).all(), "z_1 grows to the right"
    assert (np.diff(second, axis=0) < 0).all(), "z_2 grows upwards"
    np.testing.assert_allclose(first[2, 2], 0.5, atol=1e-6)
    lowest = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.1)).sigmoid()
    np.testing.assert_allclose(first[0, 0], lowest, atol=1e-6)


def test_dimension_bars_are_ranked_and_show_the_threshold() -> None:
    left, right = plots.dimension_bars([0.1, 0.7, 0.3], torch.tensor([0.5, 0.001, 0.9]))
    assert [bar.get_height() for bar in left.patches] == [0.7, 0.3, 0.1]
    heights = [bar.get_height() for bar in right.patches]
    np.testing.assert_allclose(heights, [0.9, 0.5, 0.001], rtol=1e-6)
    assert right.lines[0].get_ydata()[0] == 0.01


def test_rate_distortion_names_its_points_and_keeps_them_in_view() -> None:
    ax = plots.rate_distortion([0.0, 5.0], [20.0, 12.0], ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    assert ax.get_xlim()[0] <= 0 < 5 <= ax.get_xlim()[1] < 10
    assert ax.get_ylim()[0] <= 12 < 20 <= ax.get_ylim()[1] < 30


def test_a_confusion_table_shows_counts_and_shades_by_row() -> None:
    table = np.array([[3, 1, 0], [0, 2, 6]])
    ax = plots.confusion(table, ["film", "book"], ["a", "b", "c"])
    np.testing.assert_allclose(
        np.asarray(ax.collections[0].get_array()).reshape(2, 3),
        [[0.75, 0.25, 0], [0, 0.25, 0.75]],
    )
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "0", "2", "6"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["film", "book"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]


def test_a_class_without_documents_is_a_pale_row() -> None:
    ax = plots.confusion(np.array([[0, 0], [1, 1]]), ["film", "book"], ["a", "b"])
    assert np.asarray(ax.collections[0].get_array()).ravel().tolist() == [0, 0, 0.5, 0.5]


def test_names_that_do_not_fit_the_table_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] does not go with 3 names of rows and 2 of"):
        plots.confusion(np.zeros((2, 3), dtype=int), ["a", "b", "c"], ["x", "y"])


def test_accuracy_by_labels_draws_mean_spread_and_optimum() -> None:
    curves = {
        "from scratch": {500: [0.7, 0.8, 0.9], 100: [0.3, 0.5, 0.4]},
        "with the VAE": {100: [0.8], 500: [0.9]},
    }
    given = plt.subplots()[1]
    ax = plots.accuracy_by_labels(curves, bayes=0.95, ax=given)
    assert ax is given
    assert ax.get_xscale() == "log"
    np.testing.assert_allclose(ax.lines[0].get_data(), [[100, 500], [0.4, 0.8]])
    np.testing.assert_allclose(ax.lines[1].get_data(), [[100, 500], [0.8, 0.9]])
    band = ax.collections[0].get_paths()[0].vertices
    for point in [(100, 0.3), (100, 0.5), (500, 0.7), (500, 0.9)]:
        assert np.isclose(band, point).all(1).any(), f"the band reaches {point}"
    assert set(ax.lines[2].get_ydata()) == {0.95}
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["from scratch", "with the VAE", "Bayes-optimal"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["100", "500"]


def test_no_two_of_many_methods_look_alike() -> None:
    plots.use_style()
    lines = plots.accuracy_by_labels({str(n): {25: [0.5, 0.6]} for n in range(10)}).lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10


def test_accuracy_by_labels_without_an_optimum() -> None:
    assert len(plots.accuracy_by_labels({"a": {25: [0.5, 0.6]}}).lines) == 1


def test_the_style_has_an_opaque_background() -> None:
    with plt.rc_context():
        plots.use_style()
        assert plt.rcParams["figure.facecolor"] == "white"
