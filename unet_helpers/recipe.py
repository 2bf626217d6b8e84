"""The parameters: which values are valid, what stands for None, and how many epochs fit into the minutes."""

import math
import numbers
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .images import fitted_box
from .labels import DATASETS, Pair
from .model import LARGEST_SIDE, check_image_size
from .naming import named, setting, shown
from .networks import DRAWN_SCENES, as_python, unet_switches
from .training import stage_of

# A coarse ladder: a machine that is a little faster today trains for as many epochs as yesterday.
EPOCH_LADDER = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
SIDE_STEP, LEAST_SIDE = 32, 64  # of IMAGE_SIZE: what all cells of the lesson accept, at half resolution, too
LEAST_FREE = 1 << 20  # bytes on a disk: with fewer, nothing is saved
LONG_SHARE, SHORT_SHARE = 2 / 3, 1 / 6  # of MINUTES: the training with the whole recipe, and each of the two before it
DEFAULTS = {  # what None stands for
    "CPU": {"N_FILTERS": 16, "HALF_RESOLUTION": True, "BATCH_SIZE": 8},
    "GPU": {"N_FILTERS": 32, "HALF_RESOLUTION": False, "BATCH_SIZE": 16},  # by reasoning, not by measurement
    "demo": {"IMAGE_SIZE": (192, 256), "SIZE_STAGES": ((0.5, 0.5), (1.0, 1.0))},
    "other": {"IMAGE_SIZE": (384, 512), "SIZE_STAGES": ((0.5, 0.25), (0.8, 0.5), (1.0, 1.0))},
}


def expected_seconds(epochs: int, stages: Sequence[tuple[float, float]], seconds_per_epoch: Sequence[float]) -> float:
    """Seconds of a training. seconds_per_epoch: one number for each stage."""
    return sum(seconds_per_epoch[stage_of(epoch, epochs, stages)] for epoch in range(epochs))


def choose_epochs(seconds: float, stages: Sequence[tuple[float, float]], seconds_per_epoch: Sequence[float]) -> int:
    """The most epochs of EPOCH_LADDER that fit into so many seconds; its first step if not even that fits."""
    fits = [n for n in EPOCH_LADDER if expected_seconds(n, stages, seconds_per_epoch) <= seconds]
    return max(fits, default=EPOCH_LADDER[0])


def _is_number(value, high: float) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value <= high


def _is_whole(value, high: int, low: int = 1) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high


def _is_path(value) -> bool:
    """Whether the system accepts this path. A ~ or ~NAME must be the home folder of a user."""
    try:
        os.stat(Path(value).expanduser())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (TypeError, ValueError, RuntimeError, OSError):
        return False
    return bool(str(value).strip())


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_stages(stages) -> bool:
    try:
        shares, fractions = zip(*stages, strict=True)
    except (TypeError, ValueError):
        return False
    valid = all(_is_number(value, 1) for value in (*shares, *fractions)) and list(shares) == sorted(set(shares))
    # another last fraction would be another IMAGE_SIZE
    return isinstance(stages, Sequence) and valid and shares[-1] == fractions[-1] == 1


def _or_none(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_valid(value)


# Parameter: (is a value valid, which ones are, an example). Higher numbers than these exceed any memory.
RULES: dict[str, tuple[Callable[[object], bool], str, object]] = {
    "DATASET": (lambda value: value in DATASETS, f"one of {', '.join(map(repr, DATASETS))}", "demo"),
    "DATA_DIR": (_is_path, "the path of a folder", "data"),
    "RUN_DIR": (_is_path, "the path of a folder", "runs"),
    "ARCHIVE": (_or_none(_is_path), "None or the path of a zip file", None),
    "SPLIT_BY": (_or_none(_is_pattern), "None or a regular expression that finds the sequence in a file's name", None),
    "MINUTES": (lambda value: _is_number(value, 10**6), "a number above 0, at most 1000000", 4),
    "IMAGE_SIZE": (  # `check_image_size` raises a ValueError that says more
        _or_none(lambda value: bool(check_image_size(named("IMAGE_SIZE"), value, SIDE_STEP, LEAST_SIDE))),
        "None or (height, width)", (192, 256),
    ),
    "SEED": (lambda value: _is_whole(value, 2**32 - 1, low=0), "a whole number from 0 to 4294967295", 0),
    "EPOCHS": (_or_none(lambda value: _is_whole(value, 10**5)), "None or a whole number above 0, at most 100000", 20),
    "N_FILTERS": (_or_none(lambda value: _is_whole(value, 256)), "None or a whole number above 0, at most 256", 16),
    "HALF_RESOLUTION": (_or_none(lambda value: isinstance(value, bool)), "None, True or False", True),
    "BATCH_SIZE": (_or_none(lambda value: _is_whole(value, 4096)), "None or a whole number above 0, at most 4096", 8),
    "SIZE_STAGES": (
        _or_none(_are_stages),
        "None or (share, fraction) pairs, shares rising to 1, fractions up to 1, the last 1", ((0.5, 0.5), (1, 1)),
    ),
    "LEARNING_RATE": (lambda value: _is_number(value, 1), "a number above 0, at most 1", 0.02),
    "START_FROM": (_or_none(_is_path), 'None, "scratch", "demo" or the path of a .keras file', "demo"),
    "FREEZE_ENCODER": (lambda value: isinstance(value, bool), "True or False", False),
    "TRAIN_ANEW": (lambda value: isinstance(value, bool), "True or False", False),
    "FRAMES_PER_DRIVE": (lambda value: _is_whole(value, 10**4), "a whole number above 0, at most 10000", 20),
}  # fmt: skip


OPTIONS = {  # what stands in the notebook's OPTIONS unless it is given there
    "EPOCHS": None, "START_FROM": None, "FREEZE_ENCODER": False, "TRAIN_ANEW": False, "N_FILTERS": None,
    "BATCH_SIZE": None, "HALF_RESOLUTION": None, "SIZE_STAGES": None, "LEARNING_RATE": 2e-2, "ARCHIVE": None,
    "SPLIT_BY": None, "RUN_DIR": "runs", "FRAMES_PER_DRIVE": 20,
}  # fmt: skip


def check_parameters(values: dict[str, object]) -> None:
    """Raises ValueError for the first invalid parameter. values: one for each of RULES."""
    for name, (is_valid, expected, example) in RULES.items():
        if not is_valid(values[name]):
            found = shown(values[name])
            raise ValueError(f"{named(name)}: found {found}, expected {expected}; try {setting(name, example)}")
    dataset = values["DATASET"]
    if values["SPLIT_BY"] is not None and dataset != "folder":
        todo = setting("SPLIT_BY", None)
        raise ValueError(f"{named('SPLIT_BY')}: {dataset!r} has splits of its own, so it takes no pattern; try {todo}")
    if values["ARCHIVE"] is not None and dataset not in ("lyft", "camvid"):
        raise ValueError(f"ARCHIVE: {dataset!r} is not downloaded, so it needs no zip; try ARCHIVE = None")


def _check_writable(name: str, folder: Path) -> None:
    """Raises ValueError if nothing can be written in the folder or, as long as it is not made, in the one above it."""
    # os.path's function, unlike Path's, returns False for what is in a folder that may not be searched
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # a full disk still takes an empty file
            file.write(bytes(LEAST_FREE))
            file.flush()
    except OSError as error:
        found = f"nothing can be written in {str(there)!r} ({os.strerror(error.errno or 0)})"
        raise ValueError(f"{named(name)}: {found}; give a folder where you may write") from None


@dataclass(frozen=True)
class Recipe:
    """All parameters, checked and complete. Sizes are (height, width) in pixels."""

    dataset: str  # one of `labels.DATASETS`
    data_dir: Path
    archive: Path | None  # a zip to use instead of a download
    run_dir: Path  # has a folder for each run
    minutes: float  # of all trainings of the lesson
    image_size: tuple[int, int]
    seed: int
    epochs: int | None  # None: as many as fit into the minutes
    n_filters: int  # of the network's first level
    half_resolution: bool  # the network's output has half the image's height and width
    batch_size: int
    size_stages: tuple[tuple[float, float], ...]  # see `training.ProgressiveResizing`
    learning_rate: float  # the highest
    frames_per_drive: int  # that are drawn for the data set "demo"
    train_anew: bool = False  # repeat a finished training in a new folder
    split_by: str | None = None  # regular expression for the sequence in an image's name, see `datasets.load_dataset`
    start_from: Path | None = None  # `.keras` file for `networks.transfer_weights`; None: from scratch
    freeze_encoder: bool = False

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the network's output."""
        return tuple(side // 2 for side in self.image_size) if self.half_resolution else self.image_size

    @property
    def data_options(self) -> dict:
        """The keyword arguments of `datasets.load_dataset`."""
        names = ("seed", "frames_per_drive", "archive", "split_by")
        return {name: getattr(self, name) for name in names}

    @property
    def long_minutes(self) -> float:
        """Minutes of the training with the whole recipe; epochs overrides them."""
        return LONG_SHARE * self.minutes

    @property
    def short_minutes(self) -> float:
        """Minutes of each of the two short trainings before it; infinite if epochs is given."""
        return SHORT_SHARE * self.minutes if self.epochs is None else math.inf

    @property
    def short_epochs(self) -> int:
        """The most epochs of a short training: epochs in proportion to its minutes."""
        return 10**6 if self.epochs is None else math.ceil(self.epochs * SHORT_SHARE / LONG_SHARE)


def make_recipe(device_kind: str, n_devices: int = 1, **parameters) -> Recipe:
    """Check the notebook's parameters, given under their names, and replace None by what suits device and data set.
    device_kind: "CPU" or "GPU". n_devices: that share a batch. Those of OPTIONS may be left out. Writes nothing.
    Raises ValueError as `check_parameters` does, also for paths that can't be used."""
    given = OPTIONS | parameters
    check_parameters(given)
    is_demo = given["DATASET"] == "demo"
    defaults = DEFAULTS[device_kind] | DEFAULTS["demo" if is_demo else "other"]
    start, network = _find_start(given, defaults)
    if given["FREEZE_ENCODER"] and not start:
        name, other = named("FREEZE_ENCODER"), named("START_FROM")
        raise ValueError(f"{name}: found True in a training from scratch; give {other}, too, or leave it out")
    values = {
        name: as_python((defaults | network).get(name) if value is None else value) for name, value in given.items()
    }
    values |= {name: float(values[name]) for name in ("MINUTES", "LEARNING_RATE")}
    values |= {name: given[name] and Path(given[name]).expanduser() for name in ("DATA_DIR", "RUN_DIR", "ARCHIVE")}
    for name in ("DATA_DIR", "RUN_DIR") if is_demo else ("RUN_DIR",):  # the demo is drawn there
        _check_writable(name, values[name])
    values["START_FROM"] = start
    batch_size, equal = values["BATCH_SIZE"], math.ceil(values["BATCH_SIZE"] / n_devices) * n_devices
    if given["BATCH_SIZE"] is not None and batch_size != equal:
        expected = f"expected a multiple of {n_devices}, the number of devices"
        nearest = " or ".join(setting("BATCH_SIZE", n) for n in (equal - n_devices, equal) if n)
        raise ValueError(f"{named('BATCH_SIZE')}: found {batch_size}, {expected}; try {nearest}")
    values["BATCH_SIZE"] = equal
    return Recipe(**{name.lower(): value for name, value in values.items()})


def _find_start(given: dict, defaults: dict) -> tuple[Path | None, dict]:
    """The file of the network to transfer weights from, and its switches, which the new network must have, too.
    None is the drawn scenes' network for CamVid's photographs if the other parameters fit it."""
    wish = given["START_FROM"]
    if wish == "scratch" or (wish is None and given["DATASET"] != "camvid"):
        return None, {}
    path = DRAWN_SCENES if wish in (None, "demo") else Path(wish).expanduser()
    network = dict(zip(("N_FILTERS", "HALF_RESOLUTION"), unet_switches(path), strict=True))
    if wish is None:
        fits = all((defaults[name] if given[name] is None else given[name]) == network[name] for name in network)
        return (path, network) if fits else (None, {})
    for name, value in network.items():
        if given[name] not in (None, value):
            found = f"found {given[name]}, but {named('START_FROM')}'s network has {value}"
            raise ValueError(f"{named(name)}: {found}; try {name} = None")
    return path, network


def note_better_size(pairs: Sequence[Pair], recipe: Recipe) -> None:
    """Print which IMAGE_SIZE would suit the images better, if there is one; about 20 of them are looked at.
    It has their median proportions and about as many pixels as recipe.image_size, but no more than the images: padding
    around images of other proportions and pixels that only enlarge small ones take time and show nothing."""
    sizes = []
    for pair in pairs[:: 1 + len(pairs) // 20]:
        with Image.open(pair.image) as image:
            sizes.append((image.height, image.width))
    height, width = np.median(sizes, axis=0)
    scale, step = math.sqrt(min(1, math.prod(recipe.image_size) / (height * width))), 2 * SIDE_STEP  # halves fit, too
    better = tuple(min(max(1, round(side * scale / step)) * step, LARGEST_SIDE) for side in (height, width))

    def used_share(size: tuple[int, int]) -> float:  # of its pixels show something of their own, on average
        shown = 0
        for own in sizes:
            top, left, bottom, right = fitted_box(own, size)
            shown += min((bottom - top) * (right - left), math.prod(own))
        return shown / len(sizes) / math.prod(size)

    now, then = used_share(recipe.image_size), used_share(better)
    if then > 1.25 * now:
        found = f"images fill {now:.0%} of {'{}x{}'.format(*recipe.image_size)}, the rest is padding or enlargement"
        print(f"note: {found}; {setting('IMAGE_SIZE', better)} would be filled to {then:.0%}")
