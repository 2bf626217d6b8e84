"""The loss, cross-entropy and Dice, and class weights, another way to make rare classes count."""

import keras
import numpy as np

from .labels import VOID


@keras.saving.register_keras_serializable("unet_helpers")
def cross_entropy_and_dice(masks, logits):
    """Cross-entropy of each pixel plus 1 - Dice, the mean over the classes in the batch; void counts in neither.
    masks: (B, H, W, 1) ids 0..K-1, 255 = void. logits: (B, H, W, K) float.
    Returns (B, H, W) float: 0 at void, the others scaled so that the mean over all pixels is that over the known ones.
    Dice, twice the overlap of ground truth and prediction divided by the sum of both, is a differentiable cousin of the
    IoU. It counts each class once, however few pixels it has, while the cross-entropy counts pixels.
    Sources: Milletari, Navab and Ahmadi 2016, https://arxiv.org/abs/1606.04797 (Dice); Isensee et al. 2021 (nnU-Net),
    https://arxiv.org/abs/1809.10486 (the sum of both)."""
    ids = keras.ops.cast(masks[..., 0], "int32")
    true = keras.ops.one_hot(ids, logits.shape[-1], dtype=logits.dtype)  # void: zero everywhere
    known = keras.ops.sum(true, axis=-1)
    present = keras.ops.cast(keras.ops.any(true > 0, axis=(0, 1, 2)), logits.dtype)
    dice_losses = keras.losses.dice(true, keras.ops.softmax(logits) * known[..., None], axis=(0, 1, 2))
    dice_loss = keras.ops.sum(present * dice_losses) / keras.ops.maximum(keras.ops.sum(present), 1)
    cross_entropy = keras.losses.sparse_categorical_crossentropy(masks, logits, from_logits=True, ignore_class=VOID)
    return known * (cross_entropy + dice_loss) / keras.ops.maximum(keras.ops.mean(known), keras.config.epsilon())


def class_weights(pixels: np.ndarray, power: float = 0.5) -> np.ndarray:
    """(K,) float32 weight of each class in the loss: (median frequency / frequency) ** power.
    pixels: (K,) how often each class occurs in the training masks, from `check_pairs`; an absent class weighs 0. The
    weights are scaled so that the mean over all pixels is 1, and the learning rate keeps its meaning.
    Source: Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734 (power 1); a power of 0.5 is milder."""
    pixels = np.asarray(pixels, float)
    if not pixels.sum():
        raise ValueError("pixels: found no pixel of any class, expected the counts of the training masks")
    present = pixels > 0
    weights = np.zeros(len(pixels))
    weights[present] = (np.median(pixels[present]) / pixels[present]) ** power
    return (weights * pixels.sum() / (weights * pixels).sum()).astype(np.float32)
