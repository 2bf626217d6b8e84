"""Annex: what `python -m unet_helpers COMMAND` does, a module for each command. Nobody needs it to follow the lesson.

Each command prints what it does and returns how many files failed. What stops it is raised: ValueError, OSError,
RuntimeError, or WrongOption.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROGRESS_SECONDS = 5  # between two lines of progress
OPTIONS = {  # a parameter of the notebook, as messages name it: what stands for it here
    "DATASET": "--dataset", "DATA_DIR": "DIR", "MINUTES": "--minutes", "EPOCHS": "--epochs", "SEED": "--seed",
    "IMAGE_SIZE": "--image-size", "RUN_DIR": "--runs", "TRAIN_ANEW": "--train-anew", "SPLIT_BY": "--split-by",
    "START_FROM": "--start-from", "FREEZE_ENCODER": "--freeze-encoder", "LEARNING_RATE": "--learning-rate",
    "BATCH_SIZE": "--batch-size",
}  # fmt: skip
# Not within a path: /home/DATASET stays.
NAMES = re.compile(rf"(?<![\w/\\.-])({'|'.join(OPTIONS)})\b(?![/\\.-])(?: =)?")


class WrongOption(ValueError):
    """An option has a value that no data can make right."""


def find_network(path: Path) -> Path:
    """The file of a network: of a training's folder its best.keras, else path itself."""
    best = path / "best.keras"
    return best if best.is_file() else path


def in_options(message: str) -> str:
    """A message that names parameters of the notebook, with the options of this command in their place."""
    message = NAMES.sub(lambda match: OPTIONS[match[1]], message)
    message = re.sub(r"load_network\(path, (.*)\)$", r"\1", message)  # what `networks` asks for
    message = message.replace("un the cell again", "un the command again")
    message = message.replace("give its path as ARCHIVE", "unpack it in DIR")
    message = message.replace("labels=LabelMap(names, colors)", "--classes FILE")
    message = message.replace("image_size=(height, width)", "--image-size HxW")
    message = re.sub("^image_size(?=: )", "--image-size", message)
    return re.sub(r"\((\d+), (\d+)\)", r"\1x\2", message) if message.startswith("--image-size") else message


def say_error(message: str) -> None:
    """Print a message where errors go."""
    print(f"unet_helpers: {message}", file=sys.stderr, flush=True)


def with_progress(items: Iterable, n_items: int, what: str) -> Iterator:
    """The same items; every few seconds a line says how many there were: "what: 12 of 340"."""
    said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - said >= PROGRESS_SECONDS and number < n_items:
            said = time.monotonic()
            print(f"{what}: {number} of {n_items}", flush=True)
