import itertools
import os
import random
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import VOID
from unet_helpers.model import unet_model
from unet_helpers.optimizers import KernelMuon, WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.training import (
    EpochLine,
    ProgressiveResizing,
    Speed,
    StepLine,
    TimeLimit,
    compile_unet,
    measure_speed,
)


def test_void_is_left_out_of_the_loss_and_of_the_metric():
    inputs = keras.Input((1, 2, 3))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    compile_unet(model, 3, 1e-3)
    logits = np.float32([[[[2, 0, 0], [0, 9, 0]]]])
    mask = np.uint8([[[[0], [VOID]]]])
    result = model.evaluate(logits, mask, verbose=0, return_dict=True)
    chance = np.exp(2) / (np.exp(2) + 2)
    # The mean is over the known pixels, here one of the two.
    assert result["loss"] == pytest.approx(-np.log(chance) + 1 - 2 * chance / (chance + 1), rel=1e-5)
    assert result["mIoU"] == pytest.approx(1)


def test_one_image_can_be_overfitted(write_pair, labels):
    """Catches the errors that end in black predictions: wrong ids, wrong scale, wrong loss."""
    pair = write_pair()
    batches = make_batches([pair], labels, (32, 48), 1)
    model = unet_model((32, 48, 3), 8, 3, depth=1, dropout_prob=0)
    compile_unet(model, 3, WarmupStableDecay(150, 1e-2))
    # Keras's "auto" would compile on a GPU, anew for each size; JAX always does.
    assert model.jit_compile is (keras.backend.backend() == "jax")
    model.fit(batches.repeat(150), shuffle=False, verbose=0)
    assert evaluate_model(model, [pair], labels, (32, 48)).iou.min() > 0.95


def test_the_last_epoch_has_the_full_size_however_few_there_are():
    for epochs, changes in ((1, []), (2, [(2, "64x96")]), (5, [(5, "64x96")])):
        resizing = ProgressiveResizing((64, 96), ((0.9, 0.5), (1, 1)), epochs)
        resizing.on_epoch_begin(epochs - 1)
        assert resizing.sizes[resizing.stage] == (64, 96)
        assert resizing.changes == changes


def make_training(write_pair, labels, stages=((1, 1),), n_images=3, dropout=0.3):
    """A network that JAX compiles quickly, compiled; its batches; its sizes."""
    conv = keras.layers.Conv2D
    layers = conv(4, 3, padding="same"), keras.layers.BatchNormalization(), keras.layers.Dropout(dropout), conv(3, 1)
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    compile_unet(model, 3, WarmupStableDecay(12, 1e-2))
    pairs = [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(n_images)]
    resizing = ProgressiveResizing((64, 96), stages, epochs=4)
    return model, make_batches(pairs, labels, (64, 96), 1, shuffle=True, resizing=resizing), resizing


def test_a_compiled_network_can_be_saved_loaded_and_cloned(write_pair, labels, tmp_path):
    """And trains on as the saved one would have: the optimizer's variables are saved, too."""
    model, batches, _ = make_training(write_pair, labels, dropout=0)
    model.fit(batches, shuffle=False, verbose=0)
    model.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert isinstance(loaded.optimizer, KernelMuon)
    assert isinstance(loaded.get_compile_config()["optimizer"]["config"]["learning_rate"], dict)
    for network in (model, loaded):
        network.fit(batches, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    assert isinstance(clone.optimizer, KernelMuon)


def test_measuring_tells_the_time_of_each_size_and_the_training_after_it_is_the_one_without(write_pair, labels):
    compiles_anew = keras.backend.backend() == "jax"  # each size, which takes long
    stages = ((1, 1),) if compiles_anew else ((0.5, 0.5), (1, 1))
    model, batches, resizing = make_training(write_pair, labels, stages)
    draws = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: random.random())  # as cloning a network does
    start, losses = [variable.numpy() for variable in model.variables], []
    for measured in (False, True):
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        schedule = WarmupStableDecay(1, 1e-2)
        compile_unet(model, 3, schedule)
        if measured:
            resizing.on_epoch_begin(0)
            model.optimizer.build(model.trainable_variables)
            before = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
            states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
            speed = measure_speed(model, batches, batches, resizing, [draws])
            assert (len(speed.epoch), min(speed.epoch) > 0) == (len(stages), True)
            assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
            assert (resizing.epoch, resizing.stage) == (0, 0)
            for variable, value in zip((*model.variables, *model.optimizer.variables), before, strict=True):
                np.testing.assert_array_equal(variable.numpy(), value)
        schedule.set_steps(12)
        losses.append(model.fit(batches, epochs=4, verbose=0, shuffle=False, callbacks=[resizing]).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_measuring_changes_nothing_on_jax_either():
    """There the number of steps is compiled in: the test above in its own process."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", __file__, "-k", "the_training_after_it_is", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_an_epochs_time_counts_all_its_steps_validation_and_what_is_saved(write_pair, labels):
    """Each step, validation step and epoch end takes a known time more: the whole epoch is more than their sum."""
    model, batches, resizing = make_training(write_pair, labels, n_images=7)
    seen = []

    def wait(what, seconds):
        return lambda *_, **__: (seen.append(what), time.sleep(seconds))

    slow = keras.callbacks.LambdaCallback(on_train_batch_end=wait("step", 0.2), on_epoch_end=wait("epoch", 1))
    slow.on_test_batch_end = wait("validation step", 0.3)
    for n_images in (1, 7):
        seen.clear()
        some = batches.take(n_images)
        assert measure_speed(model, some, some, resizing, [slow]).epoch[0] > n_images * (0.2 + 0.3) + 1
        assert seen.count("step") == seen.count("validation step") == 1 + min(3, n_images)


def test_each_epoch_is_a_line_with_the_minutes_left(capsys, monkeypatch):
    """Two epochs took twice what was expected, so what is left is expected to take twice as long."""
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    clock = iter([0.0, 20.0, 20.0, 40.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    line = EpochLine(resizing, Speed(epoch=(10.0, 30.0)))
    logs = {"loss": 1.23456, "mIoU": 0.1, "val_loss": 2.0, "val_mIoU": 0.25}
    for epoch in (0, 1):
        resizing.on_epoch_begin(epoch)
        line.on_epoch_begin(epoch)
        line.on_epoch_end(epoch, logs)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/4 32x32: loss 1.235 mIoU 0.100, validation loss 2.000 mIoU 0.250, 2.3 min")
    assert second.endswith(" mIoU 0.250, 2.0 min left")


def test_a_long_epoch_is_never_silent_for_long(monkeypatch, capsys):
    """By a clock on which a step takes a second."""
    clock = itertools.count()
    monkeypatch.setattr("unet_helpers.training.time", types.SimpleNamespace(perf_counter=lambda: next(clock) / 2))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((40, 1)), np.ones((40, 1)), batch_size=1, epochs=2, verbose=0, callbacks=[StepLine()])
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"epoch [12]: step \d+ of 40", line) for line in lines)
    assert len(lines) == 4


def test_a_training_ends_in_time_and_what_comes_after_an_epoch_does_not_count(monkeypatch):
    """By a clock on which a step takes a second, a validation step and a figure a hundred; epochs of four steps."""
    clock, data = [0], (np.ones((4, 1)), np.ones((4, 1)))
    monkeypatch.setattr("unet_helpers.training.time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    work = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: clock.append(clock.pop() + 1))
    work.on_test_batch_end = lambda batch, logs=None: clock.append(clock.pop() + 100)
    draw = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.append(clock.pop() + 100))
    options = {"batch_size": 1, "epochs": 100, "verbose": 0, "shuffle": False}
    # The first step does not count, so the ends of the epochs are at 3, 7 and 11 seconds.
    for seconds, spent, n_steps in ((1.5, 2, 3), (2.5, 3, 4), (4.4, 3, 4), (4.6, 7, 8), (8.9, 7, 8), (9.1, 11, 12)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        limit = TimeLimit(seconds)
        model.fit(*data, validation_data=data, validation_batch_size=1, callbacks=[work, limit, draw], **options)
        assert (limit.spent, model.optimizer.iterations) == (spent, n_steps), seconds
