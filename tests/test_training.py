import csv
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import VOID
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.training import (
    KernelMuon,
    ProgressiveResizing,
    WarmupStableDecay,
    class_weights,
    compile_unet,
    cross_entropy_and_dice,
    device_report,
    make_callbacks,
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


def test_class_weights_by_hand():
    weights = class_weights(np.array([100, 25, 400, 0]), power=0.5)
    assert weights[[0, 1, 2]] / weights[0] == pytest.approx([1, 2, 0.5])
    assert weights[3] == 0
    assert (weights * [100, 25, 400, 0]).sum() / 525 == pytest.approx(1)
    with pytest.raises(ValueError, match="pixels: found no pixel"):
        class_weights(np.zeros(3))


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


def test_the_loss_by_hand():
    """Against a computation class by class, with void, a class that is absent and one that is never right."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (2, 5, 4, 1)).astype(np.uint8)
    mask[0, :2] = VOID
    logits = rng.normal(size=(2, 5, 4, 4)).astype(np.float32)
    known = mask[..., 0] != VOID
    chances = np.exp(logits[known]) / np.exp(logits[known]).sum(axis=-1, keepdims=True)
    truth = np.eye(4)[mask[known][:, 0]]
    dice = [2 * (truth * chances)[:, k].sum() / (truth + chances)[:, k].sum() for k in range(3)]  # class 3 is absent
    expected = np.zeros(mask.shape[:3])
    expected[known] = (-np.log(chances[truth == 1]) + 1 - np.mean(dice)) * known.size / known.sum()
    assert np.asarray(cross_entropy_and_dice(mask, logits)) == pytest.approx(expected, abs=1e-5)


def test_a_loss_without_a_known_pixel_is_zero():
    with tf.GradientTape() as tape:
        logits = tf.Variable(np.ones((1, 2, 2, 3), np.float32))
        loss = cross_entropy_and_dice(np.full((1, 2, 2, 1), VOID, np.uint8), logits)
    assert np.all(loss == 0)
    assert np.all(tape.gradient(loss, logits) == 0)


def test_the_rate_rises_stays_and_falls_to_zero():
    rate = WarmupStableDecay(steps=100, peak=1e-3, warmup=0.1, decay=0.3)
    rates = [float(rate(step)) for step in range(102)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9:71] == pytest.approx([1e-3] * 62)
    assert rates[85] == pytest.approx(5e-4)
    assert rates[100:] == [0, 0]  # never below, should a training take a step more than was planned
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(rate), custom_objects={"WarmupStableDecay": WarmupStableDecay}
    )
    assert [float(again(step)) for step in range(102)] == rates


def test_muon_takes_a_kernels_step_as_an_orthogonal_matrix():
    """Against the singular value decomposition of the gradient: same directions, all about equally far."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 6)))[0] for n in (3 * 3 * 4, 6))
    gradient = (left * [1, 0.8, 0.6, 0.4, 0.3, 0.2]) @ right.T
    kernel = keras.Variable(np.zeros((3, 3, 4, 6), np.float32))
    KernelMuon(0.1, ns_steps=3, weight_decay=None).apply([gradient.reshape(kernel.shape).astype(np.float32)], [kernel])
    step = -np.asarray(kernel).reshape(-1, 6)
    lengths = np.diag(left.T @ step @ right)
    assert np.abs(step - (left * lengths) @ right.T).max() < 1e-5
    assert lengths.max() / lengths.min() < 2  # of the gradient: 5
    assert lengths.mean() == pytest.approx(0.1 * 0.2 * np.sqrt(36), rel=0.2)


def test_muon_leaves_biases_normalizations_and_the_last_layer_to_adamw():
    model = unet_model((16, 16, 3), 2, 3, depth=1)
    compile_unet(model, 3, 1e-3)
    model.train_on_batch(np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 16, 1)))
    variables = zip(model.trainable_variables, model.optimizer.adam_velocities, strict=True)
    by_muon = {variable.path for variable, velocity in variables if velocity is None}
    kernels = {layer.kernel.path for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    kernels |= {layer.kernel.path for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)}
    assert by_muon == kernels - {model.get_layer("logits").kernel.path}
    assert len(by_muon) == 8


def test_muon_takes_steps_in_a_gpus_half_precision_too():
    """float16 scales the loss, and only a GPU is quick with it; the kernels stay float32."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = unet_model((16, 16, 3), 2, 3, depth=1)
        compile_unet(model, 3, 1e-2)
        images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
        masks = (images[..., :1] > 127).astype(np.uint8)
        losses = model.fit(images, masks, epochs=60, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


def test_a_picture_is_learned_by_heart(write_pair, labels):
    """Catches the family of faults that end in black predictions: wrong ids, wrong scale, wrong loss."""
    pair = write_pair()
    batches = make_batches([pair], labels, (32, 48), 1)
    model = unet_model((32, 48, 3), 8, 3, depth=2, dropout_prob=0)
    compile_unet(model, 3, WarmupStableDecay(150, 1e-2))
    model.fit(batches.repeat(150), shuffle=False, verbose=0)
    assert evaluate_model(model, batches, labels).iou.min() > 0.95


def _fit(model, batches, run_dir, epochs, extra=()):
    callbacks = [*make_callbacks(run_dir), *extra]
    return model.fit(
        batches, validation_data=batches, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks
    )


def _compiled(epochs=3):
    model = unet_model((16, 16, 3), 2, 3, depth=1)
    compile_unet(model, 3, WarmupStableDecay(epochs))
    return model


def test_fit_leaves_best_network_log_and_tensorboard(tmp_path, write_pair, labels):
    batches = make_batches([write_pair()], labels, (16, 16), 1)
    _fit(_compiled(), batches, tmp_path / "run", epochs=3)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"loss", "mIoU", "val_loss", "val_mIoU"} <= rows[0].keys()
    assert (tmp_path / "run" / "best.keras").is_file()
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))


def test_an_interrupted_fit_goes_on_where_it_stopped(tmp_path, write_pair, labels):
    batches = make_batches([write_pair()], labels, (16, 16), 1)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(_compiled(4), batches, tmp_path / "run", 4, [Interrupt()])
    history = _fit(_compiled(4), batches, tmp_path / "run", 4)
    assert history.epoch == [2, 3]
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]


def test_pictures_grow_while_training_and_after_an_interruption_too(tmp_path, write_pair, labels):
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

    def fit(*extra):
        resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
        pairs = [write_pair(size=(64, 96))]
        staged = {"sizes": resizing.sizes, "stage": resizing.stage}
        batches = make_batches(pairs, labels, (64, 96), 1, True, mask_size=(32, 48), **staged)
        network = unet_model((None, None, 3), 2, 3, depth=2, half_resolution=True)
        model = Watched(network.inputs, network.outputs)
        compile_unet(model, 3, 1e-3)
        callbacks = [*make_callbacks(tmp_path / "run")[:1], resizing, *extra]
        model.fit(batches, epochs=4, verbose=0, shuffle=False, callbacks=callbacks)

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupt())
    assert seen == [((32, 32), (16, 16)), ((32, 32), (16, 16)), ((64, 96), (32, 48))]
    seen.clear()
    fit()
    assert set(seen) == {((64, 96), (32, 48))}


def test_the_best_network_is_one_of_full_size_epochs(tmp_path):
    """Scores of smaller pictures are others: here the best of all epochs is the first."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    callbacks = make_callbacks(tmp_path, start_from_epoch=1)
    best = next(callback for callback in callbacks if isinstance(callback, keras.callbacks.ModelCheckpoint))
    best.set_model(model)
    for epoch, score in enumerate((0.9, 0.5, 0.6, 0.55)):
        model.set_weights([np.float32([[epoch]])])
        best.on_epoch_end(epoch, {"val_mIoU": score})
        assert (tmp_path / "best.keras").is_file() == (epoch > 0)
    assert keras.models.load_model(tmp_path / "best.keras").get_weights()[0] == 2


def test_the_last_epoch_has_the_full_size_however_few_there_are():
    for epochs in (1, 2, 5):
        resizing = ProgressiveResizing((64, 96), ((0.9, 0.5), (1, 1)), epochs)
        resizing.on_epoch_begin(epochs - 1)
        assert resizing.sizes[int(resizing.stage)] == (64, 96)
        assert resizing.full_size_epoch == epochs - 1


def test_early_stopping_waits_for_the_full_size(tmp_path):
    assert ProgressiveResizing((64, 96), ((0.6, 0.5), (1, 1)), epochs=32).full_size_epoch == 20
    assert ProgressiveResizing((64, 96), ((1, 1),), epochs=3).full_size_epoch == 0
    stopping = next(c for c in make_callbacks(tmp_path, 5, 20) if isinstance(c, keras.callbacks.EarlyStopping))
    assert (stopping.patience, stopping.start_from_epoch) == (5, 20)


@pytest.mark.parametrize("stages", [(), ((0.5, 0.5),), ((1, 2),), ((0.8, 1), (0.5, 1), (1, 1))])
def test_bad_stages_are_named(stages):
    with pytest.raises(ValueError, match=r"stages: expected .* found .*try"):
        ProgressiveResizing((64, 96), stages, epochs=4)


def test_the_best_network_answers_the_same_in_a_fresh_process(tmp_path, write_pair, labels):
    batches = make_batches([write_pair()], labels, (16, 16), 1)
    model = _compiled(1)
    _fit(model, batches, tmp_path / "run", epochs=1)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code = "import keras, numpy, sys; model = keras.models.load_model(sys.argv[1]);"
    code += "numpy.save(sys.argv[3], model.predict_on_batch(numpy.load(sys.argv[2])))"
    paths = [tmp_path / "run" / "best.keras", tmp_path / "image.npy", tmp_path / "logits.npy"]
    # Run elsewhere: the file must not need this project's code.
    command = [sys.executable, "-c", code, *map(str, paths)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model.predict_on_batch(image), atol=1e-5)
