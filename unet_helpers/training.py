"""Training: compiling, callbacks, and how fast this machine is."""

import collections
import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from .labels import VOID
from .losses import cross_entropy_and_dice
from .optimizers import KernelMuon

N_STEPS = 3  # of an epoch are timed, at most
SILENT_SECONDS = 8  # a training prints at least as often


def compile_unet(model: keras.Model, n_classes: int, learning_rate) -> None:
    """Give the model its loss, optimizer and metric: `cross_entropy_and_dice`, `KernelMuon`, mIoU without void.
    Biases, normalizations and the last layer get AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).
    learning_rate: a number, or a schedule such as `WarmupStableDecay`."""
    # Short averages of gradients, 10 and 20 steps, for short trainings; 3 rounds do as well as Keras's 5 and cost less.
    optimizer = KernelMuon(
        learning_rate, momentum=0.9, adam_beta_2=0.95, ns_steps=3, weight_decay=1e-2, adam_weight_decay=1e-2
    )
    # float32 whatever the policy: half precision can't count pixels.
    metric = keras.metrics.MeanIoU(n_classes, name="mIoU", sparse_y_pred=False, ignore_class=VOID, dtype="float32")
    # With XLA, TensorFlow would compile anew for each image size and incomplete batch, 33 to 45 s for two sizes of a
    # tiny network on a CPU; its gain on a GPU is not measured.
    jit_compile = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(optimizer, loss=cross_entropy_and_dice, metrics=[metric], jit_compile=jit_compile)


def stage_of(epoch: int, epochs: int, stages: Sequence[tuple[float, float]]) -> int:
    """Number of the stage of this epoch (0, 1, ...). The last epoch is always in the last stage."""
    last = len(stages) - 1
    if epoch >= epochs - 1:
        return last
    return next((stage for stage, (end, _) in enumerate(stages) if epoch / epochs < end), last)


class ProgressiveResizing(keras.callbacks.Callback):
    """Small images first, full size at the end: most is learned at a fraction of the cost.
    image_size: (height, width) at the end. stages: (share, fraction) pairs in order: until this share of the epochs is
        over the images have this fraction of image_size, rounded down to a multiple of step. The last share is 1.
    epochs: of the whole training; may be set later, before it begins.
    `pipeline.make_batches` reads sizes, those of each stage; stage, the current one; and epoch, from which all follows.
    Source: Howard et al. 2018, https://www.fast.ai/2018/08/10/fastai-diu-imagenet."""

    def __init__(self, image_size: tuple[int, int], stages: Sequence = ((1, 1),), epochs: int = 1, step: int = 32):
        super().__init__()
        self.stages, self.epochs, self.epoch, self.stage = stages, epochs, 0, 0
        self.sizes = [tuple(max(1, int(side * f / step + 1e-6)) * step for side in image_size) for _, f in stages]

    @property
    def changes(self) -> list[tuple[int, str]]:
        """(epoch, "HEIGHTxWIDTH") of each epoch (1, 2, ...) with another image size than the one before."""
        sizes = [self.sizes[stage_of(epoch, self.epochs, self.stages)] for epoch in range(self.epochs)]
        pairs = zip(sizes, sizes[1:], strict=False)
        return [(epoch, "{}x{}".format(*new)) for epoch, (old, new) in enumerate(pairs, 2) if new != old]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.stage = epoch, stage_of(epoch, self.epochs, self.stages)


@dataclass(frozen=True)
class Speed:
    """Seconds of a training here; without timing, pixels, in proportion to them."""

    epoch: tuple[float, ...]  # of an epoch of each stage


@contextlib.contextmanager
def restored(model: keras.Model, resizing: ProgressiveResizing) -> Iterator[None]:
    """After the block, a compiled model, its optimizer, Python's random state and resizing.stage are as before."""
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [1 * keras.ops.convert_to_numpy(variable) for variable in variables]  # 1 *: a copy
    random_state, stage = random.getstate(), resizing.stage
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        random.setstate(random_state)
        resizing.stage = stage


def measure_speed(
    model: keras.Model, train_batches, validation_batches, resizing: ProgressiveResizing,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Speed:  # fmt: skip
    """Time a short epoch of the smallest and of the largest size; an epoch between them follows from its pixels.
    The compiled model is trained for it, and then `restored`. callbacks: those of the training whose time counts, such
    as what saves each epoch."""
    times = _EpochTimes()

    def fit(n_steps: int) -> None:
        batches = {"x": train_batches.take(n_steps), "validation_data": validation_batches.take(n_steps)}
        model.fit(**batches, verbose=0, shuffle=False, callbacks=[*callbacks, times])  # times includes the others

    pixels, timed = [math.prod(size) for size in resizing.sizes], {}
    with restored(model, resizing):
        for n_pixels in sorted({min(pixels), max(pixels)}):
            resizing.stage = pixels.index(n_pixels)
            print("timing a few steps at {}x{}".format(*resizing.sizes[resizing.stage]), flush=True)
            for batches in (train_batches, validation_batches):  # decode each image now, not in the first epoch
                collections.deque(batches.take(N_STEPS), maxlen=0)
            fit(1)  # at each size the first step is slower
            fit(N_STEPS)
            timed[n_pixels] = times.of_whole_epoch(len(train_batches), len(validation_batches))
    return Speed(tuple(np.interp(pixels, list(timed), list(timed.values())).tolist()))


class _EpochTimes(keras.callbacks.Callback):
    """When an epoch began and ended, and each of its steps and validation steps ended, in seconds."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begun, self.steps, self.validation_steps = time.perf_counter(), [], []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for an asynchronous device
        self.steps.append(time.perf_counter())

    def on_test_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.validation_steps.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.ended = time.perf_counter()

    def of_whole_epoch(self, n_steps: int, n_validation_steps: int) -> float:
        """Seconds of an epoch of so many steps: of this one and the steps that it lacks."""
        seconds = self.ended - self.begun
        for n, ends in ((n_steps, self.steps), (n_validation_steps, self.validation_steps)):
            if n > len(ends):  # the first step opens the files, so it does not count
                seconds += (n - len(ends)) * (ends[-1] - ends[0]) / (len(ends) - 1)
        return seconds


class StepLine(keras.callbacks.Callback):
    """Prints the step every few seconds, so that no epoch is silent for long."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begun = epoch, time.perf_counter()
        self.printed = self.begun

    def on_train_batch_end(self, batch, logs=None):
        step, steps = batch + 1, self.params["steps"]
        if time.perf_counter() - self.printed >= SILENT_SECONDS and step != steps:
            print(f"epoch {self.epoch + 1}: step {step} of {steps}", flush=True)
            self.printed = time.perf_counter()


class TimeLimit(StepLine):
    """Ends a training after the epoch that ends nearest to so many seconds of steps; only the first may be cut short.
    Neither the first step counts, which builds the graph, nor validation and other callbacks."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.spent, self.since = seconds, 0.0, None

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.spent_before, self.since = self.spent, self.since and self.begun

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        now = time.perf_counter()
        self.spent += now - (self.since or now)
        self.since = now
        if self.epoch == 0 and self.spent >= self.seconds:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self.spent + (self.spent - self.spent_before) / 2 >= self.seconds:
            self.model.stop_training = True


class EpochLine(StepLine):
    """Prints a line after each epoch, and in a long one, instead of Keras's: `fit(..., verbose=0)`.
    speed: as expected; the minutes left follow from it and from how long the epochs really take."""

    def __init__(self, resizing: ProgressiveResizing, speed: Speed):
        super().__init__()
        self.resizing, self.speed, self.expected, self.measured = resizing, speed, 0.0, 0.0

    def on_epoch_end(self, epoch, logs=None):
        resizing, seconds = self.resizing, time.perf_counter() - self.begun
        self.measured += seconds
        self.expected += self.speed.epoch[resizing.stage]
        later = [stage_of(n, resizing.epochs, resizing.stages) for n in range(epoch + 1, resizing.epochs)]
        left = sum(self.speed.epoch[stage] for stage in later) * self.measured / self.expected / 60
        height, width = resizing.sizes[resizing.stage]
        scores = f"{height}x{width}: {scores_line(logs)}"
        print(f"epoch {epoch + 1}/{resizing.epochs} {scores}, {left:.1f} min left", flush=True)


def scores_line(logs: dict[str, float]) -> str:
    """Loss and mIoU after an epoch, in words."""
    train, validation = (f"loss {logs[f'{kind}loss']:.3f} mIoU {logs[f'{kind}mIoU']:.3f}" for kind in ("", "val_"))
    return f"{train}, validation {validation}"
