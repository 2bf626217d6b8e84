"""The figures in a run's folder: which numbers and images they show."""

from functools import partial
from unittest.mock import Mock

import keras
import numpy as np
from builders import make_folder, save_network, save_start, succeeds
from conftest import write_pair_to
from PIL import Image

from unet_helpers.commands import train as command_train
from unet_helpers.datasets import load_dataset
from unet_helpers.model import unet_model
from unet_helpers.plots import run, write_run_figures


def test_a_run_is_shown_by_its_log_its_first_batch_and_its_best_and_worst_images(tmp_path, monkeypatch):
    """The network finds the classes by their colours: in all images but one of the validation, where all is car."""
    folder = make_folder(tmp_path / "data", 24, (32, 48))
    Image.fromarray(np.full((32, 48, 3), (200, 40, 40), np.uint8)).save(folder / "images" / "p18.png")
    write_pair_to(folder, "p19", (32, 48), np.full((32, 48), 255, np.uint8))  # void: neither best nor worst
    dataset = load_dataset("folder", folder)
    assert [pair.image.stem for pair in dataset.validation] == ["p17", "p18", "p19"]
    model, run_dir = keras.models.load_model(save_network(tmp_path / "run", size=(32, 48))), tmp_path / "run"
    (run_dir / "log.csv").write_text("epoch,loss,mIoU,val_loss,val_mIoU\n0,2,0.1,3,0.2\n1,1.5,0.3,2.5,0.4\n")
    batch = np.full((8, 32, 48, 3), 99.6, np.float32), np.ones((8, 16, 24, 1), np.uint8)
    drawn = {}

    def note(name, given, figure):
        drawn[name] = given, figure
        return figure

    for name in ("plot_curves", "plot_confusion", "show_columns", "show_predictions"):
        draw = getattr(run, name)
        monkeypatch.setattr(run, name, lambda *a, draw=draw, name=name, **more: note(name, a, draw(*a, **more)))
    paths = write_run_figures(run_dir, model, dataset, (32, 48), batch, [(2, "64x96")])
    assert [path.name for path in paths] == ["curves.png", "confusion.png", "first_batch.png", "best_and_worst.png"]
    assert all(np.ptp(np.asarray(Image.open(path))) == 255 for path in paths)
    assert "validation mIoU from 0.200 to 0.400" in drawn["plot_curves"][1].alt
    (scores,) = drawn["plot_confusion"][0]
    assert scores.confusion.sum() == 2 * 32 * 48
    columns, _ = drawn["show_columns"][0]
    assert (columns["image"].shape, columns["image"].max()) == ((4, 32, 48, 3), 100)
    assert columns["mask"].shape == (4, 16, 24)
    images, true, predicted, _, titles = drawn["show_predictions"][0]
    assert titles == ["best: p17", "worst: p18"]
    assert (predicted[1] == 2).all()
    assert (true[0] == predicted[0]).mean() > 0.9 > (true[1] == predicted[1]).mean()


def test_a_full_disk_costs_the_figures_and_not_the_training(capsys, tmp_path, monkeypatch):
    folder, start = make_folder(tmp_path / "data", 8, (64, 64)), save_start(tmp_path / "start.keras", depth=1)
    monkeypatch.setattr(command_train, "unet_model", partial(unet_model, depth=1))
    monkeypatch.setattr(run, "write_whole", Mock(side_effect=OSError(28, "No space left on device")))
    options = ("--epochs", 1, "--image-size", "64x64", "--runs", tmp_path / "runs", "--start-from", start)
    shown = succeeds(capsys, "train", folder, *options)
    assert "the figures can't be written (No space left on device); make room and run again" in shown
    assert "the network: " in shown


def test_of_many_images_three_are_the_best_and_three_the_worst(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "data", 60, (32, 48))
    dataset = load_dataset("folder", folder)
    by_name = [pair.image.stem for pair in dataset.validation]
    for n, stem in enumerate(by_name):  # the first rows are car: one more in each
        image = np.array(Image.open(folder / "images" / f"{stem}.png"))
        image[: 2 * n] = (200, 40, 40)
        Image.fromarray(image).save(folder / "images" / f"{stem}.png")
    model, run_dir = keras.models.load_model(save_network(tmp_path / "run", size=(32, 48))), tmp_path / "run"
    (run_dir / "log.csv").write_text("epoch,loss,mIoU,val_loss,val_mIoU\n0,2,0.1,3,0.2\n")
    titles = []
    show = run.show_predictions
    monkeypatch.setattr(run, "show_predictions", lambda *given: titles.extend(given[-1]) or show(*given))
    write_run_figures(run_dir, model, dataset, (32, 48), (np.zeros((1, 32, 48, 3)), np.zeros((1, 32, 48, 1), np.uint8)))
    assert [title.split(": ")[0] for title in titles] == ["best"] * 3 + ["worst"] * 3
    assert {title.split(": ")[1] for title in titles[:3]} == set(by_name[:3])
    assert {title.split(": ")[1] for title in titles[3:]} == set(by_name[-3:])
