import os
import random
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import VOID
from unet_helpers.model import PreciseStatistics, unet_model
from unet_helpers.optimizers import KernelMuon, WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.training import (
    EpochLine,
    ProgressiveResizing,
    Speed,
    TimeLimit,
    compile_unet,
    device_report,
    measure_speed,
)


def test_a_cpu_computes_in_float32():
    if not tf.config.list_physical_devices("GPU"):
        assert device_report() == {"kind": "CPU", "name": "CPU", "precision": "float32"}


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16")]
)
def test_precision_follows_the_gpus_compute_capability(monkeypatch, capability, precision):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    details = {"compute_capability": capability, "device_name": "some GPU"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    assert device_report() == {"kind": "GPU", "name": "some GPU", "precision": precision}


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


def test_xla_is_off_on_tensorflow_until_asked_for():
    """Keras's "auto" would compile on a GPU, anew for each size and for each incomplete batch."""
    model = unet_model((16, 16, 3), 2, 3, depth=1)
    compile_unet(model, 3, 1e-3)
    assert model.jit_compile is False
    compile_unet(model, 3, 1e-3, jit_compile=True)
    assert model.jit_compile is True


def test_an_image_is_learned_by_heart(write_pair, labels):
    """Catches the family of errors that end in black predictions: wrong ids, wrong scale, wrong loss."""
    pair = write_pair()
    batches = make_batches([pair], labels, (32, 48), 1)
    model = unet_model((32, 48, 3), 8, 3, depth=2, dropout_prob=0)
    compile_unet(model, 3, WarmupStableDecay(150, 1e-2))
    model.fit(batches.repeat(150), shuffle=False, verbose=0)
    assert evaluate_model(model, [pair], labels, (32, 48)).iou.min() > 0.95


def test_a_compiled_network_can_be_saved_loaded_and_cloned(tmp_path):
    """And trains on as the one that was saved would have: the optimizer's variables come along."""
    model = unet_model((16, 16, 3), 2, 3, depth=1, dropout_prob=0)
    compile_unet(model, 3, WarmupStableDecay(20, 1e-2))
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 256, (2, 16, 16, 3)).astype("f4"), rng.integers(0, 3, (2, 16, 16, 1), np.uint8)
    model.train_on_batch(images, masks)
    model.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert isinstance(loaded.optimizer, KernelMuon)
    assert isinstance(loaded.get_compile_config()["optimizer"]["config"]["learning_rate"], dict)
    for network in (model, loaded):
        network.train_on_batch(images, masks)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    assert isinstance(clone.optimizer, KernelMuon)


def test_the_last_epoch_has_the_full_size_however_few_there_are():
    for epochs in (1, 2, 5):
        resizing = ProgressiveResizing((64, 96), ((0.9, 0.5), (1, 1)), epochs)
        resizing.on_epoch_begin(epochs - 1)
        assert resizing.sizes[resizing.stage] == (64, 96)
        assert resizing.changes == ([(epochs, "64x96")] if epochs > 1 else [])
    assert ProgressiveResizing((64, 96), ((0.6, 0.5), (1, 1)), epochs=32).changes == [(21, "64x96")]
    assert ProgressiveResizing((64, 96), epochs=4).changes == []


def make_training(write_pair, labels, model, stages=((1, 1),), n_images=3):
    """The compiled network, its batches and its sizes."""
    pairs = [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(n_images)]
    resizing = ProgressiveResizing((64, 96), stages, epochs=4)
    compile_unet(model, 3, WarmupStableDecay(12, 1e-2))
    train = make_batches(pairs, labels, (64, 96), 1, shuffle=True, resizing=resizing)
    return model, train, make_batches(pairs, labels, (64, 96), 1, resizing=resizing), resizing


def make_small():
    """A network that JAX compiles quickly."""
    layers = keras.layers.Conv2D(4, 3, padding="same"), keras.layers.Dropout(0.3), keras.layers.Conv2D(3, 1)
    return keras.Sequential([keras.Input((64, 96, 3)), *layers])


def test_measuring_tells_the_time_of_each_size_and_changes_nothing(write_pair, labels):
    unet = unet_model((None, None, 3), 2, 3, depth=1, dropout_prob=0.3)
    model, train, validation, resizing = make_training(write_pair, labels, unet, ((0.5, 0.5), (1, 1)))
    model.optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    draws = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: random.random())  # as cloning a network does
    speed = measure_speed(model, train, validation, resizing, [PreciseStatistics(train), draws])
    assert len(speed.epoch) == 2
    assert min(speed.epoch) > 0
    assert speed.start == 0  # the graph is built already
    after = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
    assert (resizing.epoch, resizing.stage) == (0, 0)


@pytest.mark.parametrize("n_images", [1, 7])
def test_an_epochs_time_counts_all_its_steps_validation_and_what_is_saved(write_pair, labels, n_images):
    """Each step, validation step and epoch end takes a known time more: the whole epoch is more than their sum."""
    model, batches, _, resizing = make_training(write_pair, labels, make_small(), n_images=n_images)
    seen = []

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append("step")
            time.sleep(0.2)

        def on_test_batch_end(self, batch, logs=None):
            seen.append("validation step")
            time.sleep(0.3)

        def on_epoch_end(self, epoch, logs=None):
            time.sleep(1)

    speed = measure_speed(model, batches, batches, resizing, [Slow()])
    assert speed.epoch[0] > n_images * (0.2 + 0.3) + 1
    assert seen.count("step") == seen.count("validation step") == 1 + min(3, n_images)


def test_a_training_after_measuring_is_the_one_without(write_pair, labels):
    model, train, validation, resizing = make_training(write_pair, labels, make_small())
    start = [variable.numpy() for variable in model.variables]
    losses = []
    for measured in (False, True):
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        schedule = WarmupStableDecay(1, 1e-2)
        compile_unet(model, 3, schedule)
        if measured:
            measure_speed(model, train, validation, resizing)
        schedule.set_steps(12)
        losses.append(model.fit(train, epochs=4, verbose=0, shuffle=False, callbacks=[resizing]).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_measuring_changes_nothing_on_jax_either():
    """Where the number of steps is compiled in: the test above in a process of its own."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", __file__, "-k", "a_training_after_measuring", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_each_epoch_is_a_line_with_the_minutes_left(capsys, monkeypatch):
    """Two epochs took twice what was expected, so what is left is expected to take twice as long."""
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    clock = iter([0.0, 21.0, 21.0, 41.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    line = EpochLine(resizing, Speed(start=0.5, epoch=(10.0, 30.0)))
    logs = {"loss": 1.23456, "mIoU": 0.1, "val_loss": 2.0, "val_mIoU": 0.25}
    for epoch in (0, 1):
        resizing.on_epoch_begin(epoch)
        line.on_epoch_begin(epoch)
        line.on_epoch_end(epoch, logs)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/4 32x32: loss 1.235 mIoU 0.100, validation loss 2.000 mIoU 0.250, 21 s, 2.3 min")
    assert second.endswith("20 s, 2.0 min left")


def test_a_training_ends_in_time_and_validation_does_not_count(monkeypatch):
    """By a clock on which each step takes a second and each validation step a hundred; the last epoch is cut."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    clock, steps = [0], []
    monkeypatch.setattr("unet_helpers.training.time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    work = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: clock.append(clock.pop() + 1))
    work.on_test_batch_end = lambda batch, logs=None: clock.append(clock.pop() + 100)
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    limit, data = TimeLimit(5.5), (np.ones((4, 1)), np.ones((4, 1)))
    options = {"batch_size": 1, "epochs": 100, "verbose": 0, "shuffle": False}
    model.fit(*data, validation_data=data, validation_batch_size=1, callbacks=[work, limit, count], **options)
    assert limit.spent == 6  # the first step does not count
    assert steps == [0, 1, 2, 3, 0, 1, 2]
