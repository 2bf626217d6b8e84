"""The figure in a notebook, and the charts of scores, shares, confidence and curves."""

import base64
import io
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib import style
from matplotlib.text import Text
from nbconvert import HTMLExporter
from PIL import Image

from run_notebook import EchoingPreprocessor
from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.plots import charts, columns
from unet_helpers.plots.figures import WIDTH, add_legend, new_figure

ALT = 'mIoU "0.5" of <road> & sky'


def jpeg(figure):
    data, _ = figure._repr_mimebundle_()
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))))


def test_a_notebook_gets_a_jpeg_with_an_alt_text_and_may_replace_it():
    cells = [
        f"from unet_helpers.plots import new_figure\nnew_figure({ALT!r})[0]",
        "shown = display(new_figure('before')[0], display_id=True)",
        "import matplotlib.pyplot\nshown.update(new_figure('after')[0])\nnew_figure('with pyplot')[0]",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    EchoingPreprocessor(timeout=60).preprocess(notebook, {"metadata": {"path": "."}})
    outputs = [output for cell in notebook.cells for output in cell.outputs if "data" in output]
    assert [output.metadata["image/jpeg"]["alt"] for output in outputs] == [ALT, "after", "with pyplot"]
    assert {tuple(output.data) for output in outputs} == {("image/jpeg", "text/plain")}
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(html, "html.parser").select("img")] == [ALT, "after", "with pyplot"]


@pytest.mark.parametrize("length", [3, 64])
def test_a_figure_is_as_wide_as_a_notebook_grows_by_its_legend_and_is_white_in_a_dark_theme_too(length):
    with style.context("dark_background"):
        figure, _ = new_figure("", 2, 3, size=(WIDTH, 3))
        add_legend(figure, [(("pavement marking " * 4)[k : k + length], (0, 0, 0)) for k in range(9)])
        pixels = jpeg(figure)
    assert figure.get_figheight() > 3.4
    assert pixels.shape[:2] == (pytest.approx(100 * figure.get_figheight(), abs=1), 800)
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert (pixels[0].min() > 230) & (pixels.min() < 80)  # black on white, as far as a JPEG knows


# ---- scores ----


@pytest.fixture
def scores(labels):
    return Scores(labels, confusion_matrices(np.uint8([[[0, 0, 1]]]), np.uint8([[[0, 1, 1]]]), 3))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def row_names(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_class_shares_add_up_and_rare_classes_have_their_digits(labels):
    figure = charts.show_classes(labels, np.array([9000, 999, 1]))
    (axes,) = figure.axes
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([0.01, 9.99, 90])
    assert row_names(axes) == ["car", "road", "sky"]
    assert texts(axes) == ["0.01 %", "9.99 %", "90 %"]
    assert "sky 90 %, road 9.99 %, car 0.01 %" in figure.alt


def test_a_class_may_be_called_like_a_formula(labels):
    """Read as matplotlib would, this one, which is no formula, ended each figure."""
    labels = replace(labels, names=(r"$\frac{$", "5$", "$x$"))
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    scores, image = Scores(labels, confusion_matrices(ids[None], ids[None], 3)), np.zeros((4, 6, 3), np.uint8)
    for figure in (charts.plot_iou(scores), columns.show_pairs([image], [ids], labels)):
        figure.savefig(io.BytesIO())
        assert r"$\frac{$" in [text.get_text() for text in figure.findobj(Text)]


def test_iou_bars_are_sorted_and_absent_classes_said(scores):
    figure = charts.plot_iou(scores, scores.baseline(0))
    (axes,) = figure.axes
    assert row_names(axes) == ["car", "sky", "road"]
    assert texts(axes) == ["absent", "0.50", "0.50"]
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([0.5, 1 / 3])
    assert legend(figure) == ["mIoU 0.500", "mIoU of the baseline 0.333"]
    assert "mIoU 0.500 (road 0.50, sky 0.50, car absent). mIoU of the baseline 0.333." in figure.alt


def test_compared_ious_stand_in_the_order_of_the_first(labels, scores):
    first = Scores(labels, confusion_matrices(np.uint8([[[0, 1, 1, 1, 2]]]), np.uint8([[[1, 1, 1, 1, 2]]]), 3))
    figure = charts.compare_iou({"first": first, "second": scores})
    (axes,) = figure.axes
    assert row_names(axes) == ["sky", "road", "car"]
    assert texts(axes) == ["0.00", "0.75", "1.00", "0.50", "0.50", "absent"]
    assert axes.patches[0].get_facecolor() != axes.patches[3].get_facecolor()
    assert legend(figure) == ["first: mIoU 0.583", "second: mIoU 0.500"]
    assert "first: mIoU 0.583 (car 1.00, road 0.75, sky 0.00)." in figure.alt


def test_confusion_matrix_is_in_percent_of_the_true_class(scores):
    figure = charts.plot_confusion(scores)
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown[0].tolist() == [50, 50, 0]
    assert np.isnan(np.ma.filled(shown[2], np.nan)).all()
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("predicted class", "true class")
    assert "sky 50 %, road 100 %." in figure.alt


def test_reliability_compares_the_confidence_with_what_is_right():
    confidence = np.array([[0.05, 0.5, 0.58, 0.95], [1.0, 1.0000001, 0.95, 1.0]], np.float32)  # a softmax may do that
    right = np.array([[False, True, False, True], [True, True, False, True]])
    figure = charts.plot_reliability(confidence, right)
    upper, lower = figure.axes
    points = upper.lines[1].get_xydata()
    assert points == pytest.approx(np.array([[0.05, 0], [0.54, 0.5], [0.98, 0.8]]), abs=1e-6)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([12.5, 0, 0, 0, 0, 25, 0, 0, 0, 62.5])
    assert f"mean gap {(1 * 0.05 + 2 * 0.04 + 5 * 0.18) / 8:.2f}" in figure.alt
    assert upper.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    for wrong in (50.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="confidence: found"):
            charts.plot_reliability(np.array([wrong]), np.array([True]))


def test_changes_stand_in_their_order_with_their_gain_and_every_seed():
    steps = [
        {"name": "textbook", "miou": [0.4, 0.6], "seconds": 40},
        {"name": "+ Dice", "miou": [0.512], "seconds": None},
        {"name": "+ Muon", "miou": [0.45, 0.5, 0.55], "seconds": 8.4},
    ]
    figure = charts.plot_changes(steps)
    scores, seconds = figure.axes
    assert row_names(scores) == ["textbook", "+ Dice", "+ Muon"]  # at the heights 2, 1, 0
    assert texts(scores) == ["0.500", "0.512 (+0.012)", "0.500 (-0.012)"]
    assert texts(seconds) == ["40 s", "not reached", "8 s"]
    seeds = [line.get_xdata().tolist() for line in scores.lines[:3]]
    assert seeds == [[0.4, 0.6], [0.512], [0.45, 0.5, 0.55]]
    assert scores.lines[3].get_xydata() == pytest.approx(np.array([[0.5, 2], [0.512, 1], [0.5, 0]]))
    assert "+ Dice 0.512 (+0.012), not reached; + Muon 0.500 (-0.012), 8 s" in figure.alt
    figure._repr_mimebundle_()
    for axes in figure.axes:  # the texts fit
        assert all(text.get_window_extent().x1 <= axes.get_window_extent().x1 for text in axes.texts)


# ---- curves ----


@pytest.fixture
def log():
    return {"loss": [2, 1], "val_loss": [2, 1.5], "mIoU": [0.1, 0.2], "val_mIoU": [0.1, 0.3]}


def test_curves_have_axes_with_units_epochs_from_one_and_changes_before_their_first_epoch(log):
    figure = charts.plot_curves(log, [(2, "96x128")], loss_name="cross-entropy + Dice loss")
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy + Dice loss", "mIoU (0..1)"]
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[1, 0.1], [2, 0.3]]
    assert legend(figure) == ["training", "validation"]
    assert "validation mIoU from 0.100 to 0.300" in figure.alt
    for axes in figure.axes:
        assert texts(axes) == ["96x128"]
        assert axes.lines[2].get_xdata() == [1.5, 1.5]
    del log["val_loss"]
    with pytest.raises(KeyError, match="val_loss"):
        charts.plot_curves(log)


def test_compared_curves_differ_in_colour_and_marker_and_tell_their_ends(log):
    figure = charts.compare_curves({"with skips": log, "without": {"val_mIoU": [0.2, 0.25, 0.28]}})
    first, second = figure.axes[0].lines
    assert first.get_xydata().tolist() == [[1, 0.1], [2, 0.3]]
    assert (first.get_color() != second.get_color()) & (first.get_marker() != second.get_marker())
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["with skips", "without"]  # no numbers: beside them, scores at another size are printed
    assert "with skips: 0.300 at the end, without: 0.280 at the end" in figure.alt
    with pytest.raises(KeyError, match="val_mIoU"):
        charts.compare_curves({"a": {"loss": [1, 2]}})
