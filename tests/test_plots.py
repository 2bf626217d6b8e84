import matplotlib.pyplot as plt
import numpy as np
import pytest

from unet_helpers import plots
from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.labels import VOID


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def picture():
    return np.full((4, 6, 3), 100, np.uint8)


@pytest.fixture
def mask():
    return np.uint8([[0] * 6, [1] * 6, [1] * 6, [VOID] * 6])


@pytest.fixture
def scores(labels):
    return Scores(labels, confusion_matrices(np.uint8([[[0, 0, 1]]]), np.uint8([[[0, 1, 1]]]), 3))


def shown(axes):
    return axes.get_images()[0].get_array()


def test_columns_have_titles_fixed_colours_and_a_legend_of_what_occurs(labels, picture, mask):
    figure = plots.show_pairs([picture], [mask], labels, row_titles=["frame 1"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "mask", "mask over image"]
    assert shown(figure.axes[1])[1, 0].tolist() == [128, 64, 128]
    assert shown(figure.axes[2])[1, 0].tolist() == [50 + 64, 50 + 32, 50 + 64]
    assert figure.axes[0].get_ylabel() == "frame 1"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "road", "void"]


def test_no_mask_is_interpolated(labels, picture, mask):
    figure = plots.show_pairs([picture], [mask], labels)
    assert {axes.get_images()[0].get_interpolation() for axes in figure.axes} == {"none"}


def test_small_masks_are_enlarged_without_new_ids():
    assert plots.enlarge(np.uint8([[0, 2]]), (2, 4)).tolist() == [[0, 0, 2, 2]] * 2


def test_errors_are_black_and_void_is_never_wrong(labels, picture, mask):
    predicted = mask.copy()
    predicted[0, 0], predicted[3] = 2, 0
    figure = plots.show_predictions([picture], [mask], [predicted], labels)
    errors = shown(figure.axes[3])
    assert errors[0, 0].tolist() == [0, 0, 0]
    assert (errors.sum(axis=-1) == 0).sum() == 1


def test_curves_have_axes_with_units():
    log = {"epoch": [0, 1], "loss": [2, 1], "val_loss": [2, 1.5], "mIoU": [0.1, 0.2], "val_mIoU": [0.1, 0.3]}
    figure = plots.plot_curves(log)
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy + Dice loss", "mIoU (0..1)"]
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[1, 0.1], [2, 0.3]]


def test_iou_bars_are_sorted_and_absent_classes_said(scores):
    axes = plots.plot_iou(scores, scores.baseline(0)).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["car", "sky", "road"]
    assert [text.get_text() for text in axes.texts] == ["absent", "0.50", "0.50"]


def test_confusion_matrix_is_in_percent_of_the_true_class(scores):
    axes = plots.plot_confusion(scores).axes[0]
    assert shown(axes)[0].tolist() == [50, 50, 0]
    assert np.isnan(np.ma.filled(shown(axes)[2], np.nan)).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_class_shares_add_up_and_rare_classes_are_seen(labels):
    axes = plots.show_classes(labels, np.array([9000, 999, 1])).axes[0]
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([0.01, 9.99, 90])
    assert axes.get_xscale() == "log"
