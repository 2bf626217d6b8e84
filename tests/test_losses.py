import numpy as np
import pytest
import tensorflow as tf

from unet_helpers.labels import VOID
from unet_helpers.losses import class_weights, cross_entropy_and_dice


def test_class_weights_by_hand():
    weights = class_weights(np.array([100, 25, 400, 0]), power=0.5)
    assert weights[[0, 1, 2]] / weights[0] == pytest.approx([1, 2, 0.5])
    assert weights[3] == 0
    assert (weights * [100, 25, 400, 0]).sum() / 525 == pytest.approx(1)
    with pytest.raises(ValueError, match="pixels: found no pixel"):
        class_weights(np.zeros(3))


def test_the_loss_by_hand():
    """Against a computation class by class, with void, a class that is absent and one that is never right."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (2, 5, 4, 1)).astype(np.uint8)
    mask[0, :2] = VOID
    logits = rng.normal(size=(2, 5, 4, 4)).astype(np.float32)
    known = mask[..., 0] != VOID
    chances = np.exp(logits[known]) / np.exp(logits[known]).sum(axis=-1, keepdims=True)
    true = np.eye(4)[mask[known][:, 0]]
    dice = [2 * (true * chances)[:, k].sum() / (true + chances)[:, k].sum() for k in range(3)]  # class 3 is absent
    expected = np.zeros(mask.shape[:3])
    expected[known] = (-np.log(chances[true == 1]) + 1 - np.mean(dice)) * known.size / known.sum()
    assert np.asarray(cross_entropy_and_dice(mask, logits)) == pytest.approx(expected, abs=1e-5)


def test_a_loss_without_a_known_pixel_is_zero():
    with tf.GradientTape() as tape:
        logits = tf.Variable(np.ones((1, 2, 2, 3), np.float32))
        loss = cross_entropy_and_dice(np.full((1, 2, 2, 1), VOID, np.uint8), logits)
    assert np.all(loss == 0)
    assert np.all(tape.gradient(loss, logits) == 0)
