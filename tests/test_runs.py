import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_helpers.augmentation import CopyPaste, RandomView
from unet_helpers.datasets import Dataset
from unet_helpers.model import unet_model
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import make_recipe
from unet_helpers.runs import BestNetwork, load_best, make_callbacks, make_plan, read_json, run_folder, write_json
from unet_helpers.training import ProgressiveResizing, compile_unet


@pytest.fixture
def dataset(write_pair, labels):
    pairs = [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(4)]
    return Dataset("folder", labels, tuple(pairs[:3]), tuple(pairs[3:]), ())


def recipe(tmp_path, **changes):
    values = {
        "DATASET": "folder", "DATA_DIR": str(tmp_path), "MINUTES": 4, "IMAGE_SIZE": (64, 96), "SEED": 0,
        "ARCHIVE": None, "RUN_DIR": str(tmp_path / "runs"), "EPOCHS": None, "N_FILTERS": 2, "HALF_RESOLUTION": True,
        "BATCH_SIZE": 2, "SIZE_STAGES": ((0.5, 0.5), (1, 1)), "LEARNING_RATE": 1e-2, "FRAMES_PER_DRIVE": 1,
    }  # fmt: skip
    return make_recipe("CPU", **values | changes)


def network(rate=1e-2, **switches):
    model = unet_model((None, None, 3), 2, 3, **{"depth": 1, "dropout_prob": 0, **switches})
    compile_unet(model, 3, rate)
    return model


# ---- the folder ----


def test_the_folders_name_tells_what_was_asked_for(tmp_path, dataset):
    folder = run_folder(recipe(tmp_path), network(), dataset)
    assert folder == tmp_path / "runs" / "folder_64x96_2_filters_4_minutes_seed_0"
    asked = run_folder(recipe(tmp_path, EPOCHS=12, SEED=3), network(), dataset)
    assert asked.name == "folder_64x96_2_filters_12_epochs_seed_3"


def test_the_settings_hold_all_that_decides_the_result(tmp_path, dataset):
    others = {"augment": [RandomView(), CopyPaste([2])], "class_weights": np.float32([1, 2, 3])}
    settings = json.loads((run_folder(recipe(tmp_path), network(), dataset, **others) / "settings.json").read_text())
    assert settings["recipe"]["minutes"] == 4
    assert settings["optimizer"]["name"] == "KernelMuon"
    assert [layer["class_name"] for layer in settings["network"]["layers"]].count("Conv2DTranspose") == 1
    assert settings["others"]["augment"][1] == "CopyPaste(classes=[2], share=0.5)"
    stat = dataset.train[1].mask.stat()
    assert settings["files"]["train"]["masks/1.png"] == [stat.st_size, stat.st_mtime_ns]
    assert str(tmp_path) not in json.dumps(settings)


def test_the_same_training_comes_back_to_its_folder_though_layers_have_new_names(tmp_path, dataset):
    folders = {run_folder(recipe(tmp_path), network(), dataset, augment=[RandomView()]) for _ in range(2)}
    assert len(folders) == 1
    moved = recipe(tmp_path, DATA_DIR=str(tmp_path / "images"))  # the place of the data is not asked, its files are
    assert run_folder(moved, network(), dataset, augment=[RandomView()]) in folders


def change_a_picture(dataset):
    path = dataset.train[0].image
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def remove_a_pair(dataset):
    object.__setattr__(dataset, "train", dataset.train[1:])


OTHER_TRAININGS = {
    "network's switch": ({}, {"skip_connections": False}, {}, None),
    "filters": ({}, {"n_filters": 3}, {}, None),
    "rate": ({}, {"rate": 2e-2}, {}, None),
    "minutes": ({"MINUTES": 5}, {}, {}, None),
    "stages": ({"SIZE_STAGES": ((1, 1),)}, {}, {}, None),
    "pasting": ({}, {}, {"augment": [RandomView()]}, None),
    "zoom": ({}, {}, {"augment": [RandomView(zoom=(1, 2)), CopyPaste([2])]}, None),
    "weights": ({}, {}, {"class_weights": np.float32([1, 2, 3])}, None),
    "a picture's time": ({}, {}, {}, change_a_picture),
    "a pair less": ({}, {}, {}, remove_a_pair),
}


@pytest.mark.parametrize("difference", OTHER_TRAININGS)
def test_another_training_never_lands_in_the_folder_of_the_first(tmp_path, dataset, difference):
    usual = {"augment": [RandomView(), CopyPaste([2])], "class_weights": None}
    first = run_folder(recipe(tmp_path), network(), dataset, **usual)
    (first / "best.keras").write_text("the reader's network")
    changed_recipe, switches, others, change = OTHER_TRAININGS[difference]
    if change:
        change(dataset)
    if "n_filters" in switches:
        model = unet_model((None, None, 3), switches["n_filters"], 3, depth=1, dropout_prob=0)
        compile_unet(model, 3, 1e-2)
    else:
        model = network(**switches)
    second = run_folder(recipe(tmp_path, **changed_recipe), model, dataset, **usual | others)
    assert second != first
    assert (first / "best.keras").read_text() == "the reader's network"
    assert run_folder(recipe(tmp_path, **changed_recipe), model, dataset, **usual | others) == second


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, dataset):
    (tmp_path / "runs" / "folder_64x96_2_filters_4_minutes_seed_0").mkdir(parents=True)
    assert run_folder(recipe(tmp_path), network(), dataset).name == "folder_64x96_2_filters_4_minutes_seed_0_2"


def test_a_json_file_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"n": object()})
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert read_json(tmp_path / "b.json") is None


# ---- the plan ----


@pytest.fixture
def batches(dataset, labels):
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    train = make_batches(dataset.train, labels, (64, 96), 1, shuffle=True, resizing=resizing)
    return train, make_batches(dataset.validation, labels, (64, 96), 1, resizing=resizing), resizing


def test_the_plan_fits_into_the_minutes_and_is_kept(tmp_path, batches, capsys, monkeypatch):
    from unet_helpers import runs

    calls = []
    speed = runs.Speed(start=5.0, step=(0.1, 0.2), epoch=(6.0, 14.0))
    monkeypatch.setattr(runs, "measure_speed", lambda *_: calls.append(1) or speed)
    plan = make_plan(tmp_path, recipe(tmp_path), None, *batches)
    assert (plan.epochs, plan.minutes) == (20, pytest.approx(205 / 60))
    shown = capsys.readouterr().out
    assert "32x32: 20 images/s in training\n64x96: 10 images/s" in shown
    assert "20 epochs, about 3.4 minutes" in shown
    assert make_plan(tmp_path, recipe(tmp_path), None, *batches) == plan
    assert len(calls) == 1
    assert "planned before: 20 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(("changes", "epochs", "said"), [
    ({"EPOCHS": 3}, 3, False), ({"EPOCHS": 100}, 100, False), ({"MINUTES": 0.01}, 8, True),
    ({"MINUTES": 60}, 256, False),
])  # fmt: skip
def test_epochs_are_exact_and_too_few_minutes_are_said(tmp_path, batches, capsys, monkeypatch, changes, epochs, said):
    from unet_helpers import runs

    speed = runs.Speed(start=5.0, step=(0.1, 0.2), epoch=(6.0, 14.0))
    monkeypatch.setattr(runs, "measure_speed", lambda *_: speed)
    assert make_plan(tmp_path, recipe(tmp_path, **changes), None, *batches).epochs == epochs
    assert ("are too few here: 8 epochs are the least" in capsys.readouterr().out) == said


def test_a_plan_by_real_measuring(tmp_path, batches):
    plan = make_plan(tmp_path, recipe(tmp_path, MINUTES=0.02), network(), *batches)
    assert plan.epochs == 8
    assert json.loads((tmp_path / "plan.json").read_text())["epochs"] == 8


# ---- a training ----


def fit(run_dir, batches, epochs=4, extra=()):
    train, validation, resizing = batches
    resizing.epochs = epochs
    keras.utils.set_random_seed(0)
    model = network(WarmupStableDecay(epochs * 3, 1e-2))
    callbacks = [*make_callbacks(run_dir, resizing), *extra]
    history = model.fit(
        train, validation_data=validation, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks
    )
    return model, history


class StopIn(keras.callbacks.Callback):
    """As if somebody pressed Stop in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.last, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.last:
            raise KeyboardInterrupt


def test_fit_leaves_best_network_log_and_tensorboard(tmp_path, batches):
    fit(tmp_path, batches, epochs=3)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"loss", "mIoU", "val_loss", "val_mIoU"} <= rows[0].keys()
    assert (tmp_path / "best.keras").is_file()
    assert list((tmp_path / "tensorboard").rglob("events*"))


def test_an_interrupted_training_is_the_one_in_one_go(tmp_path, batches):
    """Epoch 5 after a stop has the order, the pictures and the rate of epoch 5, not those of the first."""
    whole, history = fit(tmp_path / "whole", batches, epochs=6)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", batches, epochs=6, extra=[StopIn(4)])
    stopped, later = fit(tmp_path / "stopped", batches, epochs=6)
    assert later.epoch == [4, 5]
    assert later.history["loss"] == pytest.approx(history.history["loss"][4:], rel=1e-4)
    for a, b in zip(whole.get_weights(), stopped.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    rows = list(csv.DictReader((tmp_path / "stopped" / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4", "5"]


def test_pictures_grow_while_training_and_after_an_interruption_too(tmp_path, dataset, labels):
    """What the network is fed in each epoch; the second fit starts where the first was interrupted."""
    seen = []

    class Watched(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda images, masks: seen.append((images.shape[1:3], masks.shape[1:3])), data, [])
            return super().train_step(data)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(*extra):
        resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
        batches = make_batches(dataset.train[:1], labels, (64, 96), 1, mask_size=(32, 48), resizing=resizing)
        plain = unet_model((None, None, 3), 2, 3, depth=2, half_resolution=True)
        model = Watched(plain.inputs, plain.outputs)
        compile_unet(model, 3, 1e-3)
        callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup"), resizing, *extra]
        model.fit(batches, epochs=4, verbose=0, shuffle=False, callbacks=callbacks)

    with pytest.raises(KeyboardInterrupt):
        train(Interrupt())
    assert seen == [((32, 32), (16, 16)), ((32, 32), (16, 16)), ((64, 96), (32, 48))]
    seen.clear()
    train()
    assert set(seen) == {((64, 96), (32, 48))}


# ---- the best network ----


def scored(run_dir, scores, epochs=4, resumes=False):
    """Networks with one weight, the number of their epoch, get these validation scores."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs)
    best = BestNetwork(run_dir, resizing, resumes)
    best.set_model(model)
    for epoch, score in scores.items():
        resizing.on_epoch_begin(epoch)
        model.set_weights([np.float32([[epoch]])])
        best.on_epoch_end(epoch, {"val_mIoU": score})
    loaded, size = load_best(run_dir, (64, 96))
    return int(loaded.get_weights()[0][0, 0]), size


def test_the_best_network_is_one_of_the_largest_size(tmp_path, capsys):
    """Scores of smaller pictures are others: here the best of all epochs is the first."""
    assert scored(tmp_path, {0: 0.9, 1: 0.8, 2: 0.5, 3: 0.4}) == (2, (64, 96))
    assert not capsys.readouterr().out
    assert read_json(tmp_path / "best.json") == {"epoch": 3, "image_size": [64, 96], "val_mIoU": 0.5}


def test_a_training_that_ended_before_its_last_size_leaves_its_best_and_says_so(tmp_path, capsys):
    assert scored(tmp_path, {0: 0.9, 1: 0.8}) == (0, (32, 32))
    assert "ended before its last size: the network is the best of those that saw 32x32" in capsys.readouterr().out


def test_a_worse_network_after_an_interruption_does_not_replace_the_best(tmp_path):
    scored(tmp_path, {2: 0.5, 3: 0.8}, epochs=6)
    assert scored(tmp_path, {4: 0.6, 5: 0.7}, epochs=6, resumes=True)[0] == 3
    assert scored(tmp_path, {4: 0.6, 5: 0.85}, epochs=6, resumes=True)[0] == 5


def test_no_epoch_at_all_is_said(tmp_path):
    with pytest.raises(ValueError, match="no epoch was finished here"):
        load_best(tmp_path, (64, 96))


def test_early_stopping_waits_for_the_full_size(tmp_path):
    resizing = ProgressiveResizing((64, 96), ((0.6, 0.5), (1, 1)), epochs=32)
    stopping = next(c for c in make_callbacks(tmp_path, resizing, 5) if isinstance(c, keras.callbacks.EarlyStopping))
    assert (stopping.patience, stopping.start_from_epoch) == (5, 20)


def test_the_best_network_answers_the_same_in_a_fresh_process_without_this_package(tmp_path, batches):
    fit(tmp_path / "run", batches, epochs=1)
    model, _ = load_best(tmp_path / "run", (64, 96))
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code = "import keras, numpy, sys; model = keras.models.load_model(sys.argv[1]);"
    code += "numpy.save(sys.argv[3], model.predict_on_batch(numpy.load(sys.argv[2])));"
    code += "assert 'unet_helpers' not in sys.modules"
    paths = [tmp_path / "run" / "best.keras", tmp_path / "image.npy", tmp_path / "logits.npy"]
    command = [sys.executable, "-c", code, *map(str, paths)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model.predict_on_batch(image), atol=1e-5)
