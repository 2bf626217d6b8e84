import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.plots import charts, columns


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
    assert axes.get_xscale() == "linear"
    assert row_names(axes) == ["car", "road", "sky"]
    assert texts(axes) == ["0.01 %", "10.0 %", "90.0 %"]
    assert "sky 90.0 %, road 10.0 %, car 0.01 %" in figure.alt


def test_a_class_may_be_called_like_a_formula(labels):
    """As matplotlib would read it: this one, wrongly written, ended each figure."""
    labels = replace(labels, names=(r"$\frac{$", "5$", "$x$"))
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    scores = Scores(labels, confusion_matrices(ids[None], ids[None], 3))
    image = np.zeros((4, 6, 3), np.uint8)
    for figure in (
        charts.show_classes(labels, np.array([1, 2, 3])), charts.plot_iou(scores), charts.plot_confusion(scores),
        columns.show_pairs([image], [ids], labels, outline=True), columns.show_overlap(image, ids, ids, 0, labels),
    ):  # fmt: skip
        figure.savefig(io.BytesIO())
        assert r"$\frac{$" in [text.get_text().split(": ")[-1] for text in figure.findobj(Text)]


@pytest.mark.parametrize("pixels", [np.zeros(3, int), np.ones(2, int)])
def test_shares_of_nothing_are_refused(labels, pixels):
    with pytest.raises(ValueError, match=r"pixels: found .*, expected 3 counts"):
        charts.show_classes(labels, pixels)


def test_iou_bars_are_sorted_and_absent_classes_said(scores):
    figure = charts.plot_iou(scores, scores.baseline(0))
    (axes,) = figure.axes
    assert row_names(axes) == ["car", "sky", "road"]
    assert texts(axes) == ["absent", "0.50", "0.50"]
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([0.5, 1 / 3])
    assert legend(figure) == ["mIoU 0.500", "mIoU of the baseline 0.333"]
    assert "mIoU 0.500 (road 0.50, sky 0.50, car absent). mIoU of the baseline 0.333." in figure.alt
    assert legend(charts.plot_iou(scores)) == ["mIoU 0.500"]


def test_compared_ious_stand_in_the_order_of_the_first(labels, scores):
    true = np.uint8([[[0, 1, 1, 1, 2]]])
    first = Scores(labels, confusion_matrices(true, np.uint8([[[1, 1, 1, 1, 2]]]), 3))
    figure = charts.compare_iou({"first": first, "second": scores})
    (axes,) = figure.axes
    assert row_names(axes) == ["sky", "road", "car"]
    assert texts(axes) == ["0.00", "0.75", "1.00", "0.50", "0.50", "absent"]
    upper, lower = axes.patches[0], axes.patches[3]
    assert upper.get_y() > lower.get_y()
    assert upper.get_facecolor() != lower.get_facecolor()
    assert legend(figure) == ["first: mIoU 0.583", "second: mIoU 0.500"]
    assert "first: mIoU 0.583 (car 1.00, road 0.75, sky 0.00)." in figure.alt


def test_confusion_matrix_is_in_percent_of_the_true_class(scores):
    figure = charts.plot_confusion(scores)
    axes = figure.axes[0]
    shown = axes.get_images()[0].get_array()
    assert shown[0].tolist() == [50, 50, 0]
    assert np.isnan(np.ma.filled(shown[2], np.nan)).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert "sky 50 %, road 100 %." in figure.alt


def test_reliability_compares_what_is_said_with_what_is_right():
    confidence = np.array([[0.05, 0.5, 0.58, 0.95], [1.0, 1.0, 0.95, 1.0]], np.float32)
    right = np.array([[False, True, False, True], [True, True, False, True]])
    figure = charts.plot_reliability(confidence, right)
    upper, lower = figure.axes
    points = upper.lines[1].get_xydata()
    assert points == pytest.approx(np.array([[0.05, 0], [0.54, 0.5], [0.98, 0.8]]), abs=1e-6)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([12.5, 0, 0, 0, 0, 25, 0, 0, 0, 62.5])
    gap = (1 * 0.05 + 2 * 0.04 + 5 * 0.18) / 8
    assert f"mean gap {gap:.2f}" in figure.alt
    assert upper.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]


def test_a_softmax_a_hair_above_one_is_a_confidence():
    charts.plot_reliability(np.float32([1.0000001, 0.5]), np.array([True, False]))


@pytest.mark.parametrize(
    ("confidence", "right"), [([0.5], [True, False]), ([], []), ([50.0], [True]), ([-0.1], [True]), ([np.nan], [True])]
)
def test_reliability_refuses_what_is_no_confidence(confidence, right):
    with pytest.raises(ValueError, match=r"confidence: found .*, expected"):
        charts.plot_reliability(np.array(confidence), np.array(right))


STEPS = [
    {"name": "textbook", "miou": [0.4, 0.6], "seconds": 40},
    {"name": "+ Dice", "miou": [0.512], "seconds": None},
    {"name": "+ Muon", "miou": [0.45, 0.5, 0.55], "seconds": 8.4},
]


def test_changes_stand_in_their_order_with_their_gain_and_every_seed():
    figure = charts.plot_changes(STEPS)
    scores, seconds = figure.axes
    assert row_names(scores) == ["+ Muon", "+ Dice", "textbook"]  # from the bottom up
    assert texts(scores) == ["0.500", "0.512 (+0.012)", "0.500 (-0.012)"]
    assert texts(seconds) == ["40 s", "not reached", "8 s"]
    seeds = [line.get_xydata().tolist() for line in scores.lines[:3]]
    assert seeds == [[[0.4, 2], [0.6, 2]], [[0.512, 1]], [[0.45, 0], [0.5, 0], [0.55, 0]]]
    assert scores.lines[3].get_xydata() == pytest.approx(np.array([[0.5, 2], [0.512, 1], [0.5, 0]]))
    assert "+ Dice 0.512 (+0.012), not reached; + Muon 0.500 (-0.012), 8 s" in figure.alt


def test_changes_without_times_have_no_panel_for_them():
    figure = charts.plot_changes([{"name": "textbook", "miou": [0.4]}, {"name": "x", "miou": [0.5], "seconds": None}])
    assert len(figure.axes) == 1
    assert "reached" not in figure.alt


def test_the_texts_of_the_changes_fit(labels):
    figure = charts.plot_changes(STEPS)
    figure._repr_mimebundle_()
    for axes in figure.axes:
        assert all(text.get_window_extent().x1 <= axes.get_window_extent().x1 for text in axes.texts)
