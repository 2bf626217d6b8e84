import keras
import numpy as np
import pytest

from unet_helpers.model import unet_model
from unet_helpers.optimizers import KernelMuon, WarmupStableDecay
from unet_helpers.training import compile_unet


def test_the_rate_rises_stays_and_falls_to_zero():
    rate = WarmupStableDecay(steps=100, peak=1e-3, warmup=0.1, decay=0.3)
    rates = [float(rate(step)) for step in range(102)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9:71] == pytest.approx([1e-3] * 62)
    assert rates[85] == pytest.approx(5e-4)
    assert rates[100:] == [0, 0]  # never below, should a training take a step more than was planned
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert again.get_config() == rate.get_config()


def test_another_number_of_steps_holds_for_a_network_that_has_been_trained():
    """Its compiled step reads the number anew. One weight, gradient 1: Adam's step, and so the loss, is the rate."""
    schedule = WarmupStableDecay(1, peak=1)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    optimizer = KernelMuon(schedule, weight_decay=0, adam_weight_decay=0)
    model.compile(optimizer, lambda true, predicted: keras.ops.mean(predicted))
    one = np.ones((1, 1), "f4")
    model.train_on_batch(one, one)
    schedule.set_steps(21)
    expected = WarmupStableDecay(21, peak=1)
    weights = [model.get_weights()[0].item()]
    for _ in range(20):
        model.train_on_batch(one, one)
        weights.append(model.get_weights()[0].item())
    assert -np.diff(weights) == pytest.approx([float(expected(step)) for step in range(1, 21)], abs=1e-4)
    assert schedule.get_config() == expected.get_config()


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


def test_muon_leaves_biases_normalizations_and_the_last_layer_to_adamw_also_in_half_precision():
    """float16 scales the loss, and only a GPU is quick with it; the kernels stay float32."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = unet_model((16, 16, 3), 2, 3, depth=1)
        compile_unet(model, 3, 1e-2)
        images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
        masks = (images[..., :1] > 127).astype(np.uint8)
        losses = model.fit(images, masks, epochs=20, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert losses[-1] < 0.9 * losses[0]  # and no number is nan
    assert model.output.dtype == model.get_layer("logits").compute_dtype == "float32"
    inner = model.optimizer.inner_optimizer
    variables = zip(model.trainable_variables, inner.adam_velocities, strict=True)
    by_muon = {variable.path for variable, velocity in variables if velocity is None}
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    kernels = {layer.kernel.path for layer in model.layers if isinstance(layer, kinds)}
    assert by_muon == kernels - {model.get_layer("logits").kernel.path}
    assert len(by_muon) == 8
