"""How fast a training is on this machine, measured before it begins, and how fast its batches come."""

import collections
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

N_STEPS = 3  # of an epoch are timed, at most


@dataclass(frozen=True)
class Speed:
    """Seconds of a training here: until its first step can begin, and of an epoch of each stage.

    Where nothing was timed, start is 0 and the epochs are pixels: how long they take in proportion to one another.
    """

    start: float
    epoch: tuple[float, ...]


def measure_speed(
    model: keras.Model, train_batches, validation_batches, resizing, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Speed:
    """Time a short epoch of the smallest and of the largest size; an epoch between them follows from its pixels.

    The compiled model is trained for it, so that its graph is built once, and gets back what it was: its weights, the
    optimizer's, and Python's random state. A backend other than TensorFlow compiles anew, which is start.
    resizing: `training.ProgressiveResizing`; its stage comes back, too.
    callbacks: those of the training whose time counts, as what is saved after each epoch does.
    """
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [1 * keras.ops.convert_to_numpy(variable) for variable in variables]  # 1 *: a copy
    random_state, stage = random.getstate(), resizing.stage

    def fit(n_steps: int) -> _EpochTimes:
        times = _EpochTimes()
        model.fit(
            train_batches.take(n_steps), validation_data=validation_batches.take(n_steps), verbose=0, shuffle=False,
            callbacks=[*callbacks, times],
        )  # fmt: skip
        return times

    pixels, start, timed = [math.prod(size) for size in resizing.sizes], None, {}
    try:
        for n_pixels in sorted({min(pixels), max(pixels)}):
            resizing.stage = pixels.index(n_pixels)
            for batches in (train_batches, validation_batches):  # decoded once an image, not once an epoch
                collections.deque(batches.take(N_STEPS), maxlen=0)
            first = fit(1)  # at each size the first step is slower
            start = start or first.steps[0]
            timed[n_pixels] = fit(N_STEPS).of_whole_epoch(len(train_batches), len(validation_batches))
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        random.setstate(random_state)
        resizing.stage = stage
    if keras.backend.backend() != "tensorflow":  # elsewhere the schedule's number of steps is compiled in
        model.make_train_function(force=True)
    else:
        start = 0.0
    return Speed(start, tuple(float(seconds) for seconds in np.interp(pixels, *zip(*timed.items(), strict=True))))


class _EpochTimes(keras.callbacks.Callback):
    """Seconds of an epoch, of its steps and of its validation steps. The last of the callbacks, to count the others."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = self.last = time.perf_counter()
        self.steps, self.validation_steps = [], []

    def on_train_batch_end(self, batch, logs=None):
        self._add(self.steps, logs)

    def on_test_begin(self, logs=None):
        self.last = time.perf_counter()

    def on_test_batch_end(self, batch, logs=None):
        self._add(self.validation_steps, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.begun

    def _add(self, steps: list[float], logs) -> None:
        float(logs["loss"])  # waits for a device that computes by itself
        now = time.perf_counter()
        steps.append(now - self.last)
        self.last = now

    def of_whole_epoch(self, n_steps: int, n_validation_steps: int) -> float:
        """Seconds of an epoch of so many steps: of this one, and as many steps more as it lacks."""
        found = self.seconds
        for n, steps in ((n_steps, self.steps), (n_validation_steps, self.validation_steps)):
            if n > len(steps):
                found += (n - len(steps)) * sum(steps[1:]) / len(steps[1:])  # the first one opens the files
        return found


def images_per_second(batches, step=None, max_batches: int = 20) -> float:
    """How many pictures a second the pipeline delivers, or that step(*batch) takes in, warmed up by one batch."""
    iterator = iter(batches.repeat())
    n_images = 0
    for number in range(max_batches + 1):
        batch = next(iterator)
        if step:
            step(*batch)
        if number == 0:  # the first batch fills the cache and traces the graph
            started = time.perf_counter()
        else:
            n_images += len(batch[0])
    return n_images / (time.perf_counter() - started)
