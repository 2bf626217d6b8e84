import numpy as np
import pytest

from unet_helpers.plots import curves


@pytest.fixture
def log():
    return {"epoch": [0, 1], "loss": [2, 1], "val_loss": [2, 1.5], "mIoU": [0.1, 0.2], "val_mIoU": [0.1, 0.3]}


def test_curves_have_axes_with_units_and_epochs_from_one(log):
    figure = curves.plot_curves(log, loss_name="cross-entropy + Dice loss")
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy + Dice loss", "mIoU (0..1)"]
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[1, 0.1], [2, 0.3]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation"]
    assert "validation mIoU from 0.100 to 0.300" in figure.alt


def test_a_keras_history_needs_no_epochs(log):
    del log["epoch"]
    figure = curves.plot_curves(log)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2]


def test_a_change_stands_before_its_first_epoch_in_both_panels(log):
    figure = curves.plot_curves(log, [(2, "96x128")])
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["96x128"]
        assert axes.lines[2].get_xdata() == [1.5, 1.5]


def test_a_log_without_validation_is_refused(log):
    del log["val_loss"]
    with pytest.raises(ValueError, match=r"log: found epoch, .*expected val_loss"):
        curves.plot_curves(log)


def test_compared_curves_differ_in_colour_and_marker_and_tell_their_ends(log):
    other = {"val_mIoU": [0.2, 0.25, 0.28]}
    figure = curves.compare_curves({"with skips": log, "without": other})
    first, second = figure.axes[0].lines
    assert first.get_xydata().tolist() == [[1, 0.1], [2, 0.3]]
    assert second.get_xdata().tolist() == [1, 2, 3]
    assert (first.get_color() != second.get_color()) & (first.get_marker() != second.get_marker())
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["with skips: 0.300 at the end", "without: 0.280 at the end"]
    assert all(text in figure.alt for text in texts)


def test_curves_are_drawn_over_any_column(log):
    figure = curves.compare_curves({"a": log | {"seconds": np.array([1.5, 3])}}, metric="loss", x="seconds")
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1.5, 2], [3, 1]]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("seconds", "loss")


@pytest.mark.parametrize("options", [{"metric": "val_iou"}, {"x": "seconds"}])
def test_a_missing_column_is_named(log, options):
    with pytest.raises(ValueError, match=r"histories\['a'\]: found epoch, loss.*expected"):
        curves.compare_curves({"a": log}, **options)
