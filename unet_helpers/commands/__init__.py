"""`python -m unet_helpers COMMAND`: a module for each command. The lesson does not need it.

Each command returns how many files failed; what stops it raises ValueError, OSError, RuntimeError or WrongOption."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROGRESS_SECONDS = 5  # between two lines of progress
OPTIONS = {  # a parameter or phrase of the notebook and of the library, as messages have it: what stands for it here
    "DATASET": "--dataset", "DATA_DIR": "DIR", "MINUTES": "--minutes", "EPOCHS": "--epochs", "SEED": "--seed",
    "IMAGE_SIZE": "--image-size", "RUN_DIR": "--runs", "TRAIN_ANEW": "--train-anew", "SPLIT_BY": "--split-by",
    "START_FROM": "--start-from", "FREEZE_ENCODER": "--freeze-encoder", "LEARNING_RATE": "--learning-rate",
    "BATCH_SIZE": "--batch-size", "image_size": "--image-size", "path": "--out", "format": "--format",
    "load_network(path, {})": "{}", "labels=LabelMap(names, colors)": "--classes FILE",
    "image_size=(height, width)": "--image-size HxW", "give its path as ARCHIVE": "unpack it in DIR",
    "run the cell again": "run the command again", "shorten the list augment": "use a machine with more cores",
    "IMAGE_SIZE or N_FILTERS, or set HALF_RESOLUTION = True": "--image-size",
}  # fmt: skip


class WrongOption(ValueError):
    """An option has a value that no data can make right."""


def find_network(path: Path) -> Path:
    """The file of a network: best.keras in a run's folder, the included network for "demo", else path itself."""
    best = path / "best.keras"
    if str(path) == "demo" and not path.exists():
        from ..networks import DRAWN_SCENES

        return DRAWN_SCENES
    return best if best.is_file() else path


def say_error(message: str) -> None:
    """Print a message to stderr."""
    print(f"unet_helpers: {message}", file=sys.stderr, flush=True)


def with_progress(items: Iterable, n_items: int, what: str) -> Iterator:
    """The same items; every few seconds a line says how many there were: "what: 12 of 340"."""
    said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - said >= PROGRESS_SECONDS and number < n_items:
            said = time.monotonic()
            print(f"{what}: {number} of {n_items}", flush=True)
