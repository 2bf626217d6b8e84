"""The parameters of a training: what suits which device and data set, one check of all, and minutes -> epochs."""

import math
import numbers
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .datasets import NAMES
from .model import check_image_size

DEPTH = 4  # levels below the first: unet_model's default
DEFAULTS = {  # what None stands for in the notebook's parameters
    "CPU": {"N_FILTERS": 16, "HALF_RESOLUTION": True, "BATCH_SIZE": 8},
    # For a GPU by reasoning, not by measurement:
    "GPU": {"N_FILTERS": 32, "HALF_RESOLUTION": False, "BATCH_SIZE": 16},
    "demo": {"IMAGE_SIZE": (192, 256), "SIZE_STAGES": ((0.5, 0.5), (1, 1))},
    "other": {"IMAGE_SIZE": (384, 512), "SIZE_STAGES": ((0.5, 0.25), (0.8, 0.5), (1, 1))},
}
# A coarse ladder: a machine that is a little faster today trains for as many epochs as yesterday.
LONG_SHARE, SHORT_SHARE = 2 / 3, 1 / 6  # of MINUTES: the whole recipe's training, and each of the two before it
EPOCH_LADDER = (8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Recipe:
    """All parameters, checked and complete. Sizes are (height, width) in pixels; the notebook says what each means.

    epochs: None: as many as fit into so many minutes of training. size_stages: see `training.ProgressiveResizing`.
    split_by: regular expression for the group (drive, patient, film) in a picture's name; see `load_dataset`.
    """

    dataset: str
    data_dir: Path
    archive: Path | None
    run_dir: Path
    minutes: float
    image_size: tuple[int, int]
    seed: int
    epochs: int | None
    n_filters: int
    half_resolution: bool
    batch_size: int
    size_stages: tuple[tuple[float, float], ...]
    learning_rate: float
    frames_per_drive: int
    train_anew: bool = False
    split_by: str | None = None

    @property
    def answer_size(self) -> tuple[int, int]:
        """(height, width) of the network's answer: that of the picture, or half of it."""
        return tuple(side // 2 for side in self.image_size) if self.half_resolution else self.image_size

    @property
    def long_minutes(self) -> float:
        """Minutes of the training with the whole recipe; epochs, where it is given, counts instead."""
        return LONG_SHARE * self.minutes

    @property
    def short_minutes(self) -> float:
        """Minutes of each of the two short trainings of the lesson's first parts; endless where epochs is given."""
        return SHORT_SHARE * self.minutes if self.epochs is None else math.inf

    @property
    def short_epochs(self) -> int:
        """The most epochs of a short training: as many fewer than epochs as its time is shorter."""
        return 10**6 if self.epochs is None else math.ceil(self.epochs * SHORT_SHARE / LONG_SHARE)

    @property
    def size_multiple(self) -> int:
        """What both sides of a picture must be divisible by, so that each level can halve them."""
        return 2 ** (DEPTH + self.half_resolution)


def make_recipe(device_kind: str, **parameters) -> Recipe:
    """Check the notebook's parameters, given under their names, and replace None by what suits device and data set.

    device_kind: "CPU" or "GPU". SPLIT_BY may be left out. Nothing is drawn, downloaded or written.
    Raises ValueError that names the parameter, what was found, what was expected, and a value that works.
    """
    dataset = parameters["DATASET"]
    if dataset not in NAMES:
        raise _wrong("DATASET", dataset, f"one of {', '.join(map(repr, NAMES))}", "demo")
    defaults = DEFAULTS[device_kind] | DEFAULTS["demo" if dataset == "demo" else "other"]
    given = {"SPLIT_BY": None} | parameters
    values = {name: defaults.get(name) if value is None else value for name, value in given.items()}
    for name, (is_right, expected, example) in RULES.items():
        if not is_right(values[name]):
            raise _wrong(name, values[name], expected, example)
    half_resolution = bool(values["HALF_RESOLUTION"])
    if values["ARCHIVE"] is not None:
        _check_archive(dataset, Path(values["ARCHIVE"]).expanduser())
    return Recipe(
        dataset=dataset,
        data_dir=_folder("DATA_DIR", values["DATA_DIR"], written=dataset == "demo"),
        archive=None if values["ARCHIVE"] is None else Path(values["ARCHIVE"]).expanduser(),
        run_dir=_folder("RUN_DIR", values["RUN_DIR"], written=True),
        minutes=float(values["MINUTES"]),
        image_size=check_image_size(values["IMAGE_SIZE"], DEPTH + half_resolution),
        seed=int(values["SEED"]),
        epochs=None if values["EPOCHS"] is None else int(values["EPOCHS"]),
        n_filters=int(values["N_FILTERS"]),
        half_resolution=half_resolution,
        batch_size=int(values["BATCH_SIZE"]),
        size_stages=tuple((float(share), float(fraction)) for share, fraction in values["SIZE_STAGES"]),
        learning_rate=float(values["LEARNING_RATE"]),
        frames_per_drive=int(values["FRAMES_PER_DRIVE"]),
        train_anew=values["TRAIN_ANEW"],
        split_by=values["SPLIT_BY"],
    )


def _is_whole(value, low: int, high: float = math.inf) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high


def _is_number(value, high: float = math.inf) -> bool:
    """A finite number above 0, up to high."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value <= high and value < math.inf


def _is_path(value) -> bool:
    return isinstance(value, (str, Path)) and bool(str(value).strip())


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_stages(stages) -> bool:
    try:
        shares = [share for share, _ in stages]
        return (
            all(_is_number(share, 1) and _is_number(fraction, 1) for share, fraction in stages)
            and shares == sorted(set(shares)) and shares[-1:] == [1]
        )  # fmt: skip
    except (TypeError, ValueError):
        return False


def _is_size(value) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(_is_whole(side, 1) for side in value)


RULES: dict[str, tuple[Callable[[object], bool], str, object]] = {  # parameter: is it right, what is, an example
    "DATA_DIR": (_is_path, "the path of a folder", "data"),
    "RUN_DIR": (_is_path, "the path of a folder", "runs"),
    "ARCHIVE": (lambda value: value is None or _is_path(value), "None or the path of a zip file", None),
    "SPLIT_BY": (
        lambda value: value is None or _is_pattern(value),
        "None or a regular expression whose group names the drive, patient or film in a file's name", r"(.*)-\d+",
    ),
    "MINUTES": (_is_number, "a number above 0", 4),
    "IMAGE_SIZE": (_is_size, "None or (height, width), two whole numbers above 0", (192, 256)),
    "SEED": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295", 0),
    "EPOCHS": (lambda value: value is None or _is_whole(value, 1), "None or a whole number above 0", 20),
    "N_FILTERS": (lambda value: _is_whole(value, 1), "None or a whole number above 0", 16),
    "HALF_RESOLUTION": (lambda value: isinstance(value, bool), "None, True or False", True),
    "BATCH_SIZE": (lambda value: _is_whole(value, 1), "None or a whole number above 0", 8),
    "SIZE_STAGES": (
        _are_stages, "None or (share of the epochs, fraction of the size) pairs, shares rising to 1, fractions up to 1",
        ((0.5, 0.5), (1, 1)),
    ),
    "LEARNING_RATE": (lambda value: _is_number(value, 1), "a number above 0, at most 1", 0.02),
    "TRAIN_ANEW": (lambda value: isinstance(value, bool), "True or False", False),
    "FRAMES_PER_DRIVE": (lambda value: _is_whole(value, 1), "a whole number above 0", 20),
}  # fmt: skip


def _wrong(name: str, found, expected: str, example) -> ValueError:
    return ValueError(f"{name}: found {found!r}, expected {expected}; try {name} = {example!r}")


def _check_archive(dataset: str, archive: Path) -> None:
    if dataset not in ("lyft", "camvid"):
        raise ValueError(f"ARCHIVE: {dataset!r} is not downloaded, so it needs no zip; try ARCHIVE = None")
    if not archive.is_file():
        raise ValueError(f"ARCHIVE: there is no file {str(archive)!r}; give the path of the zip that you downloaded")


def _folder(name: str, value, written: bool) -> Path:
    """The path with ~ expanded; if it is to be written, raises ValueError unless a file can be made in it."""
    folder = Path(value).expanduser()
    # os.path's functions say no where Path's raise for a folder that may not be looked into.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise ValueError(f"{name}: {str(there)!r} is no folder; give the path of a folder")
    if written:
        try:
            # Asking for permissions does not tell of read-only disks, and a full one takes an empty file.
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError as error:
            raise ValueError(
                f"{name}: nothing can be written in {str(there)!r} ({os.strerror(error.errno or 0)}); give a folder "
                "where you may write"
            ) from None
    return folder


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
