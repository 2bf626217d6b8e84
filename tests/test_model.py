"""The U-Net and its blocks; batch normalization and its precise statistics."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LABELS, write_pair_to
from keras import layers

from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.model import (
    FusedBatchNormalization,
    PreciseStatistics,
    check_image_size,
    conv_block,
    unet_model,
    upsampling_block,
    with_keras_layers_only,
)
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.training import compile_unet


def test_the_networks_of_the_assignment_and_of_the_paper():
    model = unet_model((96, 128, 3), 32, 23, normalization=None)
    assert (model.count_params(), model.output_shape) == (8_640_471, (None, 96, 128, 23))
    paper = {"normalization": None, "padding": "valid", "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
    model = unet_model((572, 572, 1), 64, 2, **paper)
    assert (model.count_params(), model.output_shape) == (31_030_658, (None, 388, 388, 2))
    assert sum(isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)) for layer in model.layers) == 23


def test_the_blocks_halve_double_and_concatenate():
    inputs = keras.Input((16, 24, 3))
    following, skip = conv_block(inputs, 4, dropout_prob=0.3, normalization=None)
    assert (following.shape, skip.shape) == ((None, 8, 12, 4), (None, 16, 24, 4))
    assert keras.Model(inputs, following).count_params() == (3 * 9 + 1) * 4 + (4 * 9 + 1) * 4
    following, skip = conv_block(inputs, 4, max_pooling=False)
    assert following is skip
    below, skip = keras.Input((8, 12, 8)), keras.Input((16, 24, 4))
    x = upsampling_block(below, skip, 4, normalization=None)
    assert x.shape == (None, 16, 24, 4)
    up, first, second = (8 * 9 + 1) * 4, (8 * 9) * 4 + 4, (4 * 9 + 1) * 4
    assert keras.Model([below, skip], x).count_params() == up + first + second


def test_without_skip_connections_the_decoder_sees_only_the_level_below():
    with_skips, without = (unet_model((32, 32, 3), 4, 3, depth=2, skip_connections=skips) for skips in (True, False))
    assert without.output_shape == with_skips.output_shape
    # Each of the two decoder levels has half the input channels in its first convolution.
    assert with_skips.count_params() - without.count_params() == 9 * (8 * 8 + 4 * 4)


def test_images_are_rescaled_once_and_logits_are_linear():
    """A ReLU on the logits would keep a network from ever going below 0, the mistake of several public U-Nets."""
    model = unet_model((32, 32, 3), 4, 3, depth=2)
    logits = model.predict_on_batch(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)))
    assert logits.min() < 0 < logits.max()
    assert not np.allclose(logits.sum(axis=-1), 1)
    (rescaling,) = (layer for layer in model.layers if isinstance(layer, layers.Rescaling))
    np.testing.assert_allclose(rescaling(np.float32([0, 127.5, 255])), [-1, 0, 1])


def test_half_resolution_has_output_stride_2_and_a_network_for_any_size_predicts_as_the_one_for_that_size():
    """48/2 is not divisible by 16: the decoder must crop what pooling has rounded up."""
    model = unet_model((48, 80, 3), 2, 3, half_resolution=True)
    assert model.output_shape == (None, 24, 40, 3)
    assert model.count_params() == unet_model((32, 48, 2), 2, 3).count_params() + (9 * 3 + 1) * 2
    free, fixed = unet_model((None, None, 3), 2, 3, depth=2), unet_model((32, 48, 3), 2, 3, depth=2)
    fixed.set_weights(free.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3))
    np.testing.assert_allclose(free.predict_on_batch(image), fixed.predict_on_batch(image), atol=1e-5)


def test_bad_sizes_and_switches_are_named():
    with pytest.raises(ValueError, match=r"input_size: .* divisible by 16, .*\(600, 800\).*\(608, 800\)"):
        unet_model((600, 800, 3))
    for wrong in ((96, 0), (96, 1 << 14), (96, 1.5), (96,), (96, 96, 3), "96", None, ((1, 2), 3)):
        with pytest.raises(ValueError, match=r"size: .* from 1 to 8192, found"):
            check_image_size("size", wrong)
    for right in ([96, 128], (np.int32(96), 128)):
        assert check_image_size("size", right, step=32, least=64) == (96, 128)
    with pytest.raises(ValueError, match="normalization.*'group'"):
        unet_model((32, 32, 3), normalization="group")


# ---- the fused layer ----


def both():
    """Two networks of one layer: ours and Keras's."""
    inputs = keras.Input((6, 8, 3))
    kinds = (FusedBatchNormalization, layers.BatchNormalization)
    networks = [keras.Model(inputs, kind(momentum=0.9)(inputs)) for kind in kinds]
    for network in networks:  # not the initial weights, which hide much
        network.set_weights([np.float32([n + 0.5, 1, 2]) for n in range(4)])
    return networks


def test_logits_have_single_precision_under_every_policy():
    """Half precision is too coarse for a softmax over many classes, and for the loss."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = unet_model((16, 16, 3), 2, 3, depth=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert model.output.dtype == "float32"


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_it_computes_what_keras_computes(policy):
    """Output, gradients and moving averages in training, and the output afterwards."""
    keras.config.set_dtype_policy(policy)
    try:
        networks = both()
    finally:
        keras.config.set_dtype_policy("float32")
    results = []
    for network in networks:
        x = tf.constant(np.random.default_rng(0).normal(3, 2, (4, 6, 8, 3)).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = network(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
        gradients = tape.gradient(loss, [x, *network.trainable_weights])
        results.append([y, *gradients, *network.get_weights(), network(x, training=False)])
    tolerance = 1e-3 if policy == "float32" else 0.05
    for ours, kerass in zip(*results, strict=True):
        assert ours.dtype == kerass.dtype
        np.testing.assert_allclose(np.float32(ours), np.float32(kerass), rtol=tolerance, atol=tolerance)
    for ours, kerass in zip(networks[0].get_weights(), networks[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, kerass, rtol=1e-5)  # the variance has n in the denominator, as Keras's


def fused_kernels(model) -> int:
    """How many fused kernels a training step of the model is made of, read from the graph that TensorFlow traces."""
    step = tf.function(lambda x: model(x, training=True)).get_concrete_function(tf.TensorSpec((2, 16, 16, 3)))
    return sum(operation.type.startswith("FusedBatchNorm") for operation in step.graph.get_operations())


def test_the_kernel_is_used_also_after_a_reload_and_not_on_backends_that_fuse_by_themselves(tmp_path, monkeypatch):
    model = unet_model((16, 16, 3), 2, 3, depth=1)
    assert fused_kernels(model) == fused_kernels(keras.models.clone_model(model)) == 6
    model.save(tmp_path / "network.keras")
    assert fused_kernels(keras.models.load_model(tmp_path / "network.keras")) == 6
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert fused_kernels(unet_model((16, 16, 3), 2, 3, depth=1)) == 0


def test_a_network_of_keras_layers_only_predicts_the_same_and_keeps_its_weights_to_itself():
    model = unet_model((16, 16, 3), 2, 3, depth=1)
    copy = with_keras_layers_only(model)
    assert {type(layer).__module__.split(".")[0] for layer in copy.layers} == {"keras"}
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3))
    expected = model.predict_on_batch(image)
    np.testing.assert_allclose(copy.predict_on_batch(image), expected, atol=1e-6)
    copy.set_weights([weight + 1 for weight in copy.get_weights()])
    np.testing.assert_array_equal(model.predict_on_batch(image), expected)


# ---- statistics that follow the weights ----


def miou(model, batches, training: bool) -> float:
    """mIoU of all batches with NumPy, from the logits; the statistics that training mode changes are put back."""
    weights, counts = model.get_weights(), np.zeros((2, 3))
    for images, masks in batches:
        logits = model(np.asarray(images), training=training)
        found, true = keras.ops.convert_to_numpy(logits).argmax(-1), np.asarray(masks)[..., 0]
        for k in range(3):
            counts[:, k] += np.sum((found == k) & (true == k)), np.sum(((found == k) | (true == k)) & (true != 255))
    model.set_weights(weights)
    return float(np.mean(counts[0] / counts[1]))


def test_inference_is_as_good_as_training_mode_from_the_third_epoch_on(tmp_path):
    """On the same training images; before there were precise statistics, 0.2 was missing."""
    size, n_steps, epochs = (32, 48), 3, 6
    pairs = [write_pair_to(tmp_path, f"p{n}", size, seed=n) for n in range(8 * n_steps)]
    model = unet_model((*size, 3), 8, 3, depth=2, dropout_prob=0, up_kernel_size=2, last_conv=False)
    compile_unet(model, 3, WarmupStableDecay(n_steps * epochs, 2e-2))
    batches = make_batches(pairs, LABELS, size, 8, shuffle=True, augment=[RandomResizedCrop()])
    plain, gaps = list(make_batches(pairs, LABELS, size, 8)), []

    class Compare(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            gaps.append(abs(miou(self.model, plain, True) - miou(self.model, plain, False)))

    options = {"validation_data": make_batches(pairs[:1], LABELS, size, 1), "shuffle": False, "verbose": 0}
    model.fit(batches, epochs=epochs, callbacks=[PreciseStatistics(batches), Compare()], **options)
    assert max(gaps[2:]) < 0.05


def test_the_statistics_follow_the_weights_on_jax_too():
    """The test above in its own process."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", __file__, "-k", "inference_is_as_good", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def estimate(network, batches) -> None:
    if not network.compiled:
        network.compile(jit_compile=False)
    statistics = PreciseStatistics(batches)
    statistics.set_model(network)
    statistics.estimate()


def test_statistics_are_those_of_the_batches_under_the_present_weights():
    """One layer: its means and variances are NumPy's, averaged over the batches that hold 16 images."""
    batches = [(np.random.default_rng(n).normal(n, 1 + n, (8, 6, 8, 3)).astype("f4"), None) for n in range(3)]
    seen = np.stack([images for images, _ in batches[:2]])
    for network in both():
        estimate(network, batches)
        layer = network.layers[1]
        np.testing.assert_allclose(layer.moving_mean, seen.mean((1, 2, 3)).mean(0), rtol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, seen.var((1, 2, 3)).mean(0), rtol=1e-4)
        assert layer.momentum == 0.9


@pytest.mark.parametrize(("n_plain", "expected"), [(3, [0, 0, 0, 9, 9, 9]), (16, [0] * 16)])
def test_images_come_without_augmentation_and_if_they_are_few_with_it_too(n_plain, expected):
    """The mean tells which were used: batches of one image of zeros, augmented to nines."""

    class Batches(list):
        plain = [(np.zeros((1, 6, 8, 3), "f4"), None)] * n_plain

    network = both()[0]
    estimate(network, Batches([(np.full((1, 6, 8, 3), 9, "f4"), None)] * n_plain))
    np.testing.assert_allclose(network.layers[1].moving_mean, np.mean(expected), rtol=1e-5)


def test_a_frozen_encoder_learns_nothing_and_keeps_its_statistics_while_the_rest_changes():
    model = unet_model((16, 16, 3), 2, 3, depth=1, dropout_prob=0)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    encoder = model.layers[: 1 + model.layers.index(norms[3])]
    for layer in encoder:
        layer.trainable = False
    compile_unet(model, 3, 1e-2)
    for change in (model.train_on_batch, lambda images, masks: estimate(model, [(images, None)])):
        before = [layer.get_weights() for layer in model.layers]
        change(np.full((1, 16, 16, 3), 200, "f4"), np.ones((1, 16, 16, 1), np.uint8))
        same = [all(map(np.array_equal, old, new.get_weights())) for old, new in zip(before, model.layers, strict=True)]
        assert all(same[: len(encoder)])
        assert not any(same[model.layers.index(norm)] for norm in norms[4:])
