"""The figure in a notebook, and the charts of scores, shares, confidence and curves."""

import base64
import io
from dataclasses import replace

import keras
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib import style
from matplotlib.text import Text
from nbconvert import HTMLExporter
from PIL import Image

from run_notebook import EchoingPreprocessor
from unet_helpers import plots
from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.labels import CARLA, LabelMap
from unet_helpers.model import unet_model
from unet_helpers.plots import charts, columns
from unet_helpers.plots.figures import WIDTH, add_legend, new_figure

ALT = 'mIoU "0.5" of <road> & sky'


def jpeg(figure):
    data, _ = figure._repr_mimebundle_()
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))))


def test_a_notebook_gets_a_jpeg_with_an_alt_text_and_may_replace_it():
    cells = [
        f"from unet_helpers.plots.figures import new_figure\nnew_figure({ALT!r})[0]",
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
    (axes,) = charts.show_classes(labels, np.array([5, 15, 0])).axes
    assert texts(axes) == ["absent", "25 %", "75 %"]
    (axes,) = charts.show_classes(labels, np.zeros(3, int)).axes  # all void
    assert texts(axes) == ["absent"] * 3


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
    assert texts(figure.axes[0]) == ["50", "50", "100"]
    many = LabelMap(tuple(f"class {k}" for k in range(30)), tuple((k, k, k) for k in range(30)))
    pixels = np.diag(np.arange(30)) + np.eye(30, k=-1, dtype=int)  # the rarest come first
    figure = charts.plot_confusion(Scores(many, pixels[None]))
    assert row_names(figure.axes[0]) == [f"class {k}" for k in range(10, 30)]
    shown = np.diag(figure.axes[0].get_images()[0].get_array()).tolist()
    assert shown == pytest.approx([100 * k / (k + 1) for k in range(10, 30)])


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
    with pytest.raises(ValueError, match="confidence: found none"):
        charts.plot_reliability(np.zeros(0), np.zeros(0, bool))


STEPS = [
    {"name": "textbook", "miou": [0.4, 0.6], "seconds": 40},
    {"name": "+ Dice", "miou": [0.512, 0.588]},
    {"name": "+ Muon", "miou": [0.55, 0.65, 0.6]},
]
LEFT_OUT = [{"name": "without Dice", "miou": [0.5, 0.5, 0.5]}, {"name": "without a trick", "miou": [0.56, 0.6, 0.64]}]


def test_changes_stand_in_their_order_with_their_gain_every_seed_and_whether_the_seeds_agree():
    figure = charts.plot_changes(STEPS, LEFT_OUT)
    adds, loses = figure.axes
    assert (row_names(adds), row_names(loses)) == (
        ["textbook", "+ Dice", "+ Muon"],
        ["without Dice", "without a trick"],
    )
    assert adds.yaxis_inverted()
    assert texts(adds) == ["0.500", "0.550 (+0.050)", "0.600 (+0.050)"]
    assert texts(loses) == ["0.500 (-0.100)", "0.600 (+0.000)"]
    assert [line.get_xdata().tolist() for line in adds.lines[::2]] == [step["miou"] for step in STEPS]
    assert [line.get_xydata()[0] for line in adds.lines[1::2]] == [
        pytest.approx([m, y]) for y, m in enumerate((0.5, 0.55, 0.6))
    ]
    agree = [[text.get_color() == "black" for text in axes.texts] for axes in (adds, loses)]
    assert agree == [[True, False, True], [True, False]]
    assert [[line.get_fillstyle() == "full" for line in axes.lines[1::2]] for axes in (adds, loses)] == agree
    assert "grey: the seeds disagree" in legend(figure)
    assert "+ Dice 0.550 (+0.050), the seeds disagree; + Muon 0.600 (+0.050);" in figure.alt
    assert len(charts.plot_changes(STEPS).axes) == 1


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
    assert figure.axes[0].get_window_extent().y0 > figure.axes[1].get_window_extent().y1  # one above the other
    history = keras.callbacks.History()
    history.history = log
    assert charts.plot_curves(history, [(2, "96x128")], loss_name="cross-entropy + Dice loss").alt == figure.alt
    for none in ({}, {name: [] for name in log}, keras.callbacks.History()):
        with pytest.raises(ValueError, match="no epoch has ended; run the training's cell again"):
            charts.plot_curves(none)
    del log["val_loss"]
    with pytest.raises(KeyError, match="val_loss"):
        charts.plot_curves(log)


# ---- on a phone ----


PHONE = 370  # pixels that a figure of WIDTH has on a page of 390
LONG = LabelMap(
    ("the longest name that anybody has given to a class",) + tuple(f"class {k}" for k in range(1, 20)),
    tuple((k * 12, 255 - k * 12, k * 50 % 255) for k in range(20)),
)


@pytest.fixture(scope="module", params=(CARLA, LONG), ids=("carla", "long names"))
def public_figures(request):
    """Name -> figure, for each public function that makes one."""
    labels, rng = request.param, np.random.default_rng(0)
    mask = np.kron(rng.integers(0, labels.n_classes, (6, 8)), np.ones((16, 16))).astype(np.uint8)
    other, mask[:16] = np.roll(mask, 4), 255
    image = rng.integers(0, 255, (96, 128, 3), np.uint8)
    scores = Scores(labels, confusion_matrices(mask[None], other[None], labels.n_classes))
    model = unet_model((96, 128, 3), 2, labels.n_classes)
    log = {name: rng.random(12) for name in ("loss", "val_loss", "mIoU", "val_mIoU")}
    names = "without augmentation and TTA", "+ what takes many words to say what it may be", "short"
    steps = [{"name": name, "miou": rng.uniform(low, 0.6, 3)} for name in names for low in (0, 0.5)]
    columns, title = {str(k): [image, mask, mask == 1] for k in range(3)}, "a title of many words " * 5
    return {
        "compare_iou": plots.compare_iou({"one": scores, "two": scores.baseline(0)}),
        "draw_legend": plots.draw_legend(labels),
        "draw_unet": plots.draw_unet(model),
        "plot_changes": plots.plot_changes(steps, steps[::-1]),
        "plot_confusion": plots.plot_confusion(scores),
        "plot_curves": plots.plot_curves(log, [(1, "96x128"), (12, "192x256")], "cross-entropy + Dice"),
        "plot_iou": plots.plot_iou(scores, scores.baseline(0)),
        "plot_reliability": plots.plot_reliability(rng.random(99), rng.random(99) > 0.5),
        "show_classes": plots.show_classes(labels, np.bincount(mask.ravel(), minlength=256)[: labels.n_classes]),
        "show_columns": plots.show_columns(columns, labels, [title, "b", "c"]),
        "show_feature_maps": plots.show_feature_maps(model, image),
        "show_overlap": plots.show_overlap(image, mask, other, 0, labels),
        "show_pairs": plots.show_pairs([image] * 2, [mask] * 2, labels),
        "show_predictions": plots.show_predictions([image], [mask], [other], labels, ["best: a"]),
        "show_receptive_fields": plots.show_receptive_fields(model, image),
        "show_transposed_convolution": plots.show_transposed_convolution([[1, -2, 0.5]], np.full((3, 3), 5)),
    }


def test_every_figure_can_be_read_on_a_phone(public_figures, monkeypatch):
    """Each panel is 150 pixels wide or more, each text 8 pixels tall, and none leaves the figure or meets its edge."""
    no_figures = {"receptive_fields", "unet_levels", "write_run_figures"}
    assert set(public_figures) == set(plots.__all__) - no_figures
    drawn, draw = [], Text.draw  # not the ticks beyond an axis's end, of which matplotlib keeps the texts
    monkeypatch.setattr(Text, "draw", lambda self, renderer: drawn.append(self) or draw(self, renderer))
    for name, figure in public_figures.items():
        drawn.clear()
        figure.draw_without_rendering()
        scale = PHONE / max(figure.bbox.width, 100 * WIDTH)  # a page makes no figure larger
        for axes in figure.axes:
            if (axes.axison or axes.get_images()) and axes.get_label() != "<colorbar>":
                assert scale * axes.get_window_extent().width >= 150, name
        assert len(drawn) > 1, name
        for text in (text for text in drawn if text.get_text() and text.get_visible()):
            box = Text.get_window_extent(text)  # of an annotation without its arrow
            assert scale * text.get_fontsize() * 100 / 72 >= 8, f"{name}: {text.get_text()!r}"
            assert (box.x0 > 0) & (box.x1 < figure.bbox.width), f"{name}: {text.get_text()!r}"
            assert (box.y0 > 0) & (box.y1 < figure.bbox.height), f"{name}: {text.get_text()!r}"
