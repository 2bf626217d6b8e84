"""How fast a training is on this machine, measured before it begins, and how fast its batches come."""

import random
import time
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Speed:
    """How fast a training is here, in seconds: until the first step has ended; a step, and an epoch, of each stage."""

    start: float
    step: tuple[float, ...]
    epoch: tuple[float, ...]


def measure_speed(model: keras.Model, train_batches, validation_batches, resizing, n_steps: int = 10) -> Speed:
    """Time a few steps of each size, on a copy of the compiled model: weights, optimizer and random state stay.

    resizing: `training.ProgressiveResizing`, whose sizes are measured one after another; its stage comes back.
    The time of a step is the mean of n_steps; the first two of each size are not counted.
    """
    random_state, stage = random.getstate(), resizing.stage
    copy = keras.models.clone_model(model)  # compiled alike; draws its first weights from Python's random numbers
    random.setstate(random_state)
    copy.set_weights(model.get_weights())
    start, steps, epochs = None, [], []
    begun = time.perf_counter()
    try:
        for number in range(len(resizing.sizes)):
            resizing.stage = number
            training, scoring = _StepTimes(), _StepTimes()
            copy.fit(train_batches.repeat().take(n_steps + 2), verbose=0, shuffle=False, callbacks=[training])
            copy.evaluate(validation_batches.repeat().take(n_steps + 2), verbose=0, callbacks=[scoring])
            start = start or training.ends[0] - begun
            steps.append(training.mean())
            epochs.append(len(train_batches) * steps[-1] + len(validation_batches) * scoring.mean())
    finally:
        resizing.stage = stage
    return Speed(start, tuple(steps), tuple(epochs))


class _StepTimes(keras.callbacks.Callback):
    """When each step of a fit or an evaluation has ended, in seconds."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for a device that computes by itself
        self.ends.append(time.perf_counter())

    on_test_batch_end = on_train_batch_end

    def mean(self) -> float:
        return (self.ends[-1] - self.ends[1]) / (len(self.ends) - 2)


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
