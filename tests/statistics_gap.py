"""How far training mode and inference mode are apart on the same images, with NumPy, from the logits alone.

KERAS_BACKEND=jax PYTHONPATH=.:tests python -m tests.statistics_gap 3
prints, for 3 steps an epoch, the two mIoU of each epoch as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from conftest import LABELS, write_pair_to

from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.model import PreciseStatistics, unet_model
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.training import compile_unet

SIZE, BATCH_SIZE, EPOCHS = (32, 48), 8, 6


def miou(model, batches, training: bool) -> float:
    """mIoU of all batches; the statistics that training mode changes are put back."""
    weights, counts = model.get_weights(), np.zeros((2, 3))
    for images, masks in batches:
        logits = model(np.asarray(images), training=training)
        found, true = keras.ops.convert_to_numpy(logits).argmax(-1), np.asarray(masks)[..., 0]
        for k in range(3):
            counts[:, k] += np.sum((found == k) & (true == k)), np.sum(((found == k) | (true == k)) & (true != 255))
    model.set_weights(weights)
    return float(np.mean(counts[0] / counts[1]))


def gaps(folder: Path, n_steps: int) -> list[tuple[float, float]]:
    """(mIoU in training mode, mIoU in inference mode) of the training images as they are, after each epoch."""
    pairs = [write_pair_to(folder, f"p{n}", SIZE, seed=n) for n in range(n_steps * BATCH_SIZE)]
    keras.utils.set_random_seed(0)
    model = unet_model((*SIZE, 3), 8, 3, depth=2, dropout_prob=0, up_kernel_size=2, last_conv=False)
    compile_unet(model, 3, WarmupStableDecay(n_steps * EPOCHS, 2e-2))
    batches = make_batches(pairs, LABELS, SIZE, BATCH_SIZE, shuffle=True, augment=[RandomResizedCrop()])
    plain, found = list(make_batches(pairs, LABELS, SIZE, BATCH_SIZE)), []

    class Compare(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append((miou(self.model, plain, True), miou(self.model, plain, False)))

    options = {"validation_data": make_batches(pairs[:1], LABELS, SIZE, 1), "shuffle": False, "verbose": 0}
    model.fit(batches, epochs=EPOCHS, callbacks=[PreciseStatistics(batches), Compare()], **options)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(gaps(Path(name), int(sys.argv[1]))))
