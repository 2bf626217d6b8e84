"""Training: the device and its precision, the loss, the optimizer, and what happens after each epoch."""

from collections.abc import Sequence
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


class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate over a training: along straight lines up to peak, level for long, and down to 0.

    steps: of the whole training. warmup, decay: shares of it for the way up and the way down. A cosine, the usual
    choice, is low already when the largest pictures come (`ProgressiveResizing`): too low to get used to them.
    Source: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.
    """

    def __init__(self, steps: int, peak: float = 2e-2, warmup: float = 0.05, decay: float = 0.3):
        self.steps, self.peak, self.warmup, self.decay = steps, peak, warmup, decay

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        up, down = (step + 1) / (self.warmup * self.steps), (self.steps - step) / (self.decay * self.steps)
        return self.peak * keras.ops.clip(keras.ops.minimum(up, down), 0, 1)

    def get_config(self):
        return {"steps": self.steps, "peak": self.peak, "warmup": self.warmup, "decay": self.decay}


def cross_entropy_and_dice(masks, logits):
    """The loss: cross-entropy of each pixel plus 1 - Dice, the mean over the batch's classes; void counts in neither.

    masks: (B, H, W, 1) ids 0..K-1, 255 = void. logits: (B, H, W, K) float.
    Returns (B, H, W) float: 0 at void, and the others so scaled that the mean over all is the mean over the known.
    Dice, twice the overlap of truth and answer divided by the sum of both, is the IoU's cousin and has a gradient. It
    counts each class once, however few pixels it has, where the cross-entropy counts pixels.
    Source: Milletari, Navab and Ahmadi 2016, https://arxiv.org/abs/1606.04797; the sum of both: Isensee et al. 2021
    (nnU-Net), https://arxiv.org/abs/1809.10486.
    """
    truth = keras.ops.one_hot(masks[..., 0], logits.shape[-1], dtype=logits.dtype)  # void: zero everywhere
    known = keras.ops.sum(truth, axis=-1)
    present = keras.ops.cast(keras.ops.any(truth > 0, axis=(0, 1, 2)), logits.dtype)
    dice_losses = keras.losses.dice(truth, keras.ops.softmax(logits) * known[..., None], axis=(0, 1, 2))
    dice_loss = keras.ops.sum(present * dice_losses) / keras.ops.maximum(keras.ops.sum(present), 1)
    cross_entropy = keras.losses.sparse_categorical_crossentropy(masks, logits, from_logits=True, ignore_class=VOID)
    return known * (cross_entropy + dice_loss) / keras.ops.maximum(keras.ops.mean(known), keras.config.epsilon())


class KernelMuon(keras.optimizers.Muon):
    """Keras's Muon, for the kernels of convolutions, too. Keras gives it matrices only, and all else to AdamW.

    AdamW scales the step of each weight by itself. Muon takes the steps of all weights of a kernel as one matrix, of a
    column for each filter, and makes it nearly orthogonal: no few directions take the whole step, rare ones count, too.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the step's length, for which AdamW's rates
    fit: Liu et al. 2025, https://arxiv.org/abs/2502.16982.
    """

    def _should_use_adamw(self, variable):
        # As its authors advise, the last layer, the only 1x1 convolution, is left to AdamW.
        return len(variable.shape) != 4 or tuple(variable.shape[:2]) == (1, 1)

    def zeropower_via_newtonschulz5(self, x, steps):
        return keras.ops.reshape(super().zeropower_via_newtonschulz5(_as_matrix(x), steps), x.shape)

    def lr_adjust(self, x):
        return keras.ops.reshape(super().lr_adjust(_as_matrix(x)), x.shape)


def _as_matrix(kernel):
    """(height, width, A, B) -> (height * width * A, B)."""
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1]))


def compile_unet(model: keras.Model, n_classes: int, learning_rate, weight_decay: float = 1e-2) -> None:
    """Give the model its loss, optimizer and metric.

    learning_rate: a number, or a schedule such as `WarmupStableDecay`. The loss is `cross_entropy_and_dice`; the
    optimizer `KernelMuon`, with AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) for biases,
    normalizations and the last layer; the metric mIoU, void left out.
    """
    model.compile(
        # A training is only some thousand steps: both averages over past gradients are short, of 10 and 20 steps. Three
        # rounds of orthogonalization do as well as Keras's five and cost less.
        optimizer=KernelMuon(
            learning_rate, momentum=0.9, adam_beta_2=0.95, ns_steps=3,
            weight_decay=weight_decay, adam_weight_decay=weight_decay,
        ),
        loss=cross_entropy_and_dice,
        metrics=[
            # float32 whatever the policy: half precision can't count pixels.
            keras.metrics.MeanIoU(n_classes, name="mIoU", sparse_y_pred=False, ignore_class=VOID, dtype="float32")
        ],
    )  # fmt: skip


class ProgressiveResizing(keras.callbacks.Callback):
    """Small pictures first, full size at the end: most of what there is to learn is learned at a fraction of the cost.

    image_size: (height, width) at the end. stages: (share, fraction) pairs in order: until this share of the epochs is
    over the pictures have this fraction of image_size, rounded down to a multiple of step. The last share is 1.
    sizes, stage: what `pipeline.make_batches` takes under these names: (height, width) in each stage, and a variable,
        the number of the stage that training is in.
    Source: Howard et al. 2018, https://www.fast.ai/2018/08/10/fastai-diu-imagenet.
    """

    def __init__(self, image_size: tuple[int, int], stages: Sequence[tuple[float, float]], epochs: int, step: int = 32):
        super().__init__()
        shares = [share for share, _ in stages]
        if not stages or shares != sorted(shares) or shares[-1] != 1 or not all(0 < f <= 1 for _, f in stages):
            raise ValueError(
                f"stages: expected (share of the epochs, fraction of the size) pairs, shares rising to 1, fractions in "
                f"0..1, found {stages}; try ((0.5, 0.5), (1, 1))"
            )
        self.epochs, self.shares = epochs, shares
        self.sizes = [tuple(max(1, int(side * f / step + 1e-6)) * step for side in image_size) for _, f in stages]
        with tf.device("CPU:0"):  # where tf.data reads it
            self.stage = tf.Variable(0, dtype=tf.int32, trainable=False)

    def stage_at(self, share: float) -> int:
        """Number of the stage when this share of the training, 0..1, is over."""
        return next((stage for stage, end in enumerate(self.shares) if share < end), len(self.shares) - 1)

    @property
    def full_size_epoch(self) -> int:
        """The first epoch of the last stage. The last epoch is always in it, however few there are."""
        last = len(self.shares) - 1
        return next((n for n in range(self.epochs - 1) if self.stage_at(n / self.epochs) == last), self.epochs - 1)

    def on_epoch_begin(self, epoch, logs=None):
        """The epoch alone decides: right also when a training goes on after an interruption."""
        self.stage.assign(self.stage_at(1 if epoch >= self.full_size_epoch else epoch / self.epochs))


class _BestNetwork(keras.callbacks.ModelCheckpoint):
    """Saves without loss and optimizer: a file of a third of the size, which loads where this package is not, too."""

    def __init__(self, path: Path, start_from_epoch: int, **options):
        super().__init__(path, save_best_only=True, **options)
        self.start_from_epoch = start_from_epoch

    def set_model(self, model):
        super().set_model(keras.Model(model.inputs, model.outputs, name=model.name))

    def on_epoch_end(self, epoch, logs=None):
        if epoch >= self.start_from_epoch:
            super().on_epoch_end(epoch, logs)


def make_callbacks(
    run_dir: str | Path, patience: int = 20, start_from_epoch: int = 0
) -> list[keras.callbacks.Callback]:
    """What Keras does after each epoch: files in run_dir, all by Keras's own callbacks.

    best.keras: the network with the highest validation mIoU so far, without loss and optimizer. log.csv: loss and mIoU
    of each epoch. tensorboard/: the same for TensorBoard. backup/: the state from which `fit` goes on after an
    interruption, deleted when it ends. Training stops early after patience epochs without a better validation mIoU.
    start_from_epoch: the scores of earlier epochs do not count, such as those of smaller pictures.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    resumes = (run_dir / "backup").is_dir() and any((run_dir / "backup").iterdir())
    best = {"monitor": "val_mIoU", "mode": "max"}
    return [
        keras.callbacks.BackupAndRestore(run_dir / "backup"),
        _BestNetwork(run_dir / "best.keras", start_from_epoch, **best),
        keras.callbacks.EarlyStopping(patience=patience, start_from_epoch=start_from_epoch, **best),
        keras.callbacks.CSVLogger(run_dir / "log.csv", append=resumes),
        keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False),
    ]
