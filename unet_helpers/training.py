"""Training: the device and its precision, the loss, the optimizer, and what happens after each epoch."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .labels import VOID


def device_report() -> dict[str, str]:
    """What this process computes on: {"kind": "CPU" or "GPU", "name": ..., "precision": Keras policy that suits it}.

    Half precision is for GPUs with units made for it (compute capability 7: float16, from 8 on: bfloat16). On a CPU it
    is always float32: mixed_bfloat16 can end the process there.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return {"kind": "CPU", "name": "CPU", "precision": "float32"}
    details = tf.config.experimental.get_device_details(gpus[0])
    major = details.get("compute_capability", (0, 0))[0]
    precision = "mixed_bfloat16" if major >= 8 else "mixed_float16" if major == 7 else "float32"
    return {"kind": "GPU", "name": details.get("device_name", gpus[0].name), "precision": precision}


def class_weights(pixels: np.ndarray, power: float = 0.5) -> np.ndarray:
    """(K,) weight of each class in the loss: (median frequency / frequency) ** power.

    pixels: (K,) how often each class occurs in the training masks, from `check_pairs`. A class that does not occur
    weighs 0. The weights are scaled so that the mean over all pixels is 1: the learning rate keeps its meaning.
    Source: Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734 (power 1); 0.5 takes the edge off.
    """
    pixels = np.asarray(pixels, float)
    if not pixels.sum():
        raise ValueError("pixels: found no pixel of any class, expected the counts of the training masks")
    present = pixels > 0
    weights = np.zeros(len(pixels))
    weights[present] = (np.median(pixels[present]) / pixels[present]) ** power
    return (weights * pixels.sum() / (weights * pixels).sum()).astype(np.float32)


def compile_unet(
    model: keras.Model, n_classes: int, steps: int, learning_rate: float = 5e-3, weight_decay: float = 1e-2
) -> None:
    """Give the model its loss, optimizer and metric. steps: batches of the whole training (steps an epoch x epochs).

    The loss is the cross-entropy of the logits, void left out. AdamW's rate rises to learning_rate in the first tenth
    of the steps and falls to 0 along a cosine. The metric is mIoU, void left out.
    """
    warmup = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID),
        metrics=[
            # float32 whatever the policy: half precision can't count pixels.
            keras.metrics.MeanIoU(n_classes, name="mIoU", sparse_y_pred=False, ignore_class=VOID, dtype="float32")
        ],
    )


def make_callbacks(run_dir: str | Path, patience: int = 20) -> list[keras.callbacks.Callback]:
    """What Keras does after each epoch: files in run_dir, all by Keras's own callbacks.

    best.keras: the network with the highest validation mIoU so far. log.csv: loss and mIoU of each epoch.
    tensorboard/: the same for TensorBoard. backup/: the state from which `fit` goes on after an interruption, deleted
    when it ends. Training stops early after patience epochs without a better validation mIoU.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    resumes = (run_dir / "backup").is_dir() and any((run_dir / "backup").iterdir())
    best = {"monitor": "val_mIoU", "mode": "max"}
    return [
        keras.callbacks.BackupAndRestore(run_dir / "backup"),
        keras.callbacks.ModelCheckpoint(run_dir / "best.keras", save_best_only=True, **best),
        keras.callbacks.EarlyStopping(patience=patience, **best),
        keras.callbacks.CSVLogger(run_dir / "log.csv", append=resumes),
        keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False),
    ]
