"""How many epochs fit into the time, and which size of pictures each epoch has."""

from collections.abc import Sequence

# A coarse ladder: a machine that is a little faster today trains for as many epochs as yesterday.
EPOCH_LADDER = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def stage_of(epoch: int, epochs: int, stages: Sequence[tuple[float, float]]) -> int:
    """Number of the stage that this epoch (0, 1, ...) of a training is in. The last epoch is always in the last."""
    last = len(stages) - 1
    if epoch >= epochs - 1:
        return last
    return next((stage for stage, (end, _) in enumerate(stages) if epoch / epochs < end), last)


def expected_seconds(epochs: int, stages: Sequence[tuple[float, float]], seconds_per_epoch: Sequence[float]) -> float:
    """Seconds of a training. seconds_per_epoch: of each stage's epochs."""
    return sum(seconds_per_epoch[stage_of(epoch, epochs, stages)] for epoch in range(epochs))


def choose_epochs(seconds: float, stages: Sequence[tuple[float, float]], seconds_per_epoch: Sequence[float]) -> int:
    """The most epochs of EPOCH_LADDER that fit into so many seconds; its first step where not even that fits."""
    fits = [n for n in EPOCH_LADDER if expected_seconds(n, stages, seconds_per_epoch) <= seconds]
    return max(fits, default=EPOCH_LADDER[0])
