"""The parameters: what each may be, what stands for None, and how many epochs fit into the minutes."""

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
from .networks import DRAWN_SCENES, unet_switches

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


SIDE_STEP, LEAST_SIDE = 32, 64  # of IMAGE_SIZE: what all cells of the lesson work with, at half resolution, too
LEAST_FREE = 1 << 20  # bytes on a disk: with fewer, no training is saved
LONGEST_NAME, LONGEST_PATH = 255, 800  # bytes that each disk takes; a run's files add some to the path


class InvalidFolder(ValueError):
    """The parameter is right, but the disk is not as it has to be."""


def _is_whole(value, low: int, high: float = math.inf) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high


def _is_number(value, high: float = math.inf) -> bool:
    """A finite number above 0, up to high."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value <= high and value < math.inf


def _is_path(value) -> bool:
    """A path with names that disks take; its ~ or ~NAME is the home folder of somebody."""
    try:
        path = os.fsencode(Path(value).expanduser().absolute()) if str(value).strip() else b""
    except (TypeError, ValueError, RuntimeError, OSError):  # no path, no name that a disk takes, nobody of this name
        return False
    names = path.split(os.fsencode(os.sep))
    return b"\0" not in path and 0 < len(path) <= LONGEST_PATH and max(map(len, names)) <= LONGEST_NAME


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_stages(stages) -> bool:
    if not isinstance(stages, Sequence) or len(stages) > 100:
        return False
    try:
        shares, fractions = zip(*stages, strict=True)
    except (TypeError, ValueError):
        return False
    # At the end the pictures have the size that was asked for: less of it is another IMAGE_SIZE.
    return (
        all(_is_number(value, 1) for value in (*shares, *fractions))
        and [*shares] == sorted(set(shares)) and shares[-1] == fractions[-1] == 1
    )  # fmt: skip


def _is_size(value) -> bool:
    """Raises ValueError, which says more than the rule, if it is none."""
    return bool(check_image_size(named("IMAGE_SIZE"), value, SIDE_STEP, LEAST_SIDE))


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _whole(high: int, example: int, none: bool = True) -> tuple[Callable[[object], bool], str, int]:
    is_right = lambda value: (none and value is None) or _is_whole(value, 1, high)  # noqa: E731
    return is_right, f"{'None or ' * none}a whole number above 0, at most {high}", example


# Parameter: is it right, what is, an example. No real use reaches the highest numbers: beyond them the memory is full.
RULES: dict[str, tuple[Callable[[object], bool], str, object]] = {
    "DATASET": (lambda value: value in DATASETS, f"one of {', '.join(map(repr, DATASETS))}", "demo"),
    "DATA_DIR": (_is_path, "the path of a folder", "data"),
    "RUN_DIR": (_is_path, "the path of a folder", "runs"),
    "ARCHIVE": (_or_none(_is_path), "None or the path of a zip file", None),
    "SPLIT_BY": (
        _or_none(_is_pattern),
        "None or a regular expression whose group names the drive, patient or film in a file's name", None,
    ),
    "MINUTES": (lambda value: _is_number(value, 10**6), "a number above 0, at most 1000000", 4),
    "IMAGE_SIZE": (_or_none(_is_size), "None or (height, width)", (192, 256)),
    "SEED": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295", 0),
    "EPOCHS": _whole(10**5, 20),
    "N_FILTERS": _whole(256, 16),
    "HALF_RESOLUTION": (_or_none(lambda value: isinstance(value, bool)), "None, True or False", True),
    "BATCH_SIZE": _whole(4096, 8),
    "SIZE_STAGES": (
        _or_none(_are_stages),
        "None or (share of the epochs, fraction of the size) pairs, shares rising to 1, fractions up to 1, the last 1",
        ((0.5, 0.5), (1, 1)),
    ),
    "LEARNING_RATE": (lambda value: _is_number(value, 1), "a number above 0, at most 1", 0.02),
    "START_FROM": (_or_none(_is_path), 'None, "scratch", "demo" or the path of a .keras file', "demo"),
    "FREEZE_ENCODER": (lambda value: isinstance(value, bool), "True or False", False),
    "TRAIN_ANEW": (lambda value: isinstance(value, bool), "True or False", False),
    "FRAMES_PER_DRIVE": _whole(10**4, 20, none=False),
}  # fmt: skip


def check_parameters(values: dict[str, object]) -> None:
    """Raises ValueError that names the first parameter that no rule allows, what was found and what works; TypeError
    unless there is a value for each of RULES, and for nothing else.
    """
    if odd := sorted(values.keys() ^ RULES):
        raise TypeError(f"{', '.join(odd)}: missing or unknown; expected a value for each of {', '.join(RULES)}")
    for name, (is_right, expected, example) in RULES.items():
        if not is_right(values[name]):
            found = shown(values[name])
            raise ValueError(f"{named(name)}: found {found}, expected {expected}; try {setting(name, example)}")
    dataset = values["DATASET"]
    if values["SPLIT_BY"] is not None and dataset != "folder":
        todo = setting("SPLIT_BY", None)
        raise ValueError(f"{named('SPLIT_BY')}: {dataset!r} has splits of its own, so it takes no pattern; try {todo}")
    if values["ARCHIVE"] is not None and dataset not in ("lyft", "camvid"):
        raise ValueError(f"ARCHIVE: {dataset!r} is not downloaded, so it needs no zip; try ARCHIVE = None")


def checked_archive(value) -> Path | None:
    """The path with ~ expanded; raises ValueError if there is no such file."""
    if value is None:
        return None
    archive = Path(value).expanduser()
    if not archive.is_file():
        raise ValueError(f"ARCHIVE: there is no file {str(archive)!r}; give the path of the zip that you downloaded")
    return archive


def checked_folder(name: str, value, written: bool) -> Path:
    """The path with ~ expanded; if it is to be written, raises InvalidFolder unless a file can be made in it."""
    folder = Path(value).expanduser()
    # os.path's functions say no where Path's raise for a folder that may not be looked into.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise InvalidFolder(f"{named(name)}: {str(there)!r} is no folder; give the path of a folder")
    if written:
        try:
            # Asking for permissions does not tell of read-only disks, and a full one takes an empty file.
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(LEAST_FREE))
                file.flush()
        except OSError as error:
            raise InvalidFolder(
                f"{named(name)}: nothing can be written in {str(there)!r} ({os.strerror(error.errno or 0)}); give a "
                "folder where you may write"
            ) from None
    return folder


DEFAULTS = {  # what None stands for in the notebook's parameters
    "CPU": {"N_FILTERS": 16, "HALF_RESOLUTION": True, "BATCH_SIZE": 8},
    # For a GPU by reasoning, not by measurement:
    "GPU": {"N_FILTERS": 32, "HALF_RESOLUTION": False, "BATCH_SIZE": 16},
    "demo": {"IMAGE_SIZE": (192, 256), "SIZE_STAGES": ((0.5, 0.5), (1, 1))},
    "other": {"IMAGE_SIZE": (384, 512), "SIZE_STAGES": ((0.5, 0.25), (0.8, 0.5), (1, 1))},
}
LONG_SHARE, SHORT_SHARE = 2 / 3, 1 / 6  # of MINUTES: the whole recipe's training, and each of the two before it


@dataclass(frozen=True)
class Recipe:
    """All parameters, checked and complete. Sizes are (height, width) in pixels; the notebook says what each means.

    epochs: None: as many as fit into so many minutes of training. size_stages: see `training.ProgressiveResizing`.
    split_by: regular expression for the group (drive, patient, film) in a picture's name; see `load_dataset`.
    start_from: `.keras` file of the network that training goes on from, by `transfer_weights`; None: from scratch.
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
    start_from: Path | None = None
    freeze_encoder: bool = False

    @property
    def output_size(self) -> tuple[int, int]:
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


def make_recipe(device_kind: str, **parameters) -> Recipe:
    """Check the notebook's parameters, given under their names, and replace None by what suits device and data set.

    device_kind: "CPU" or "GPU". SPLIT_BY, START_FROM and FREEZE_ENCODER may be left out. Nothing is drawn, downloaded
    or written.
    Raises ValueError that names the parameter, what was found, what was expected, and a value that works; TypeError
    that names a parameter which is missing or unknown.
    """
    if device_kind not in ("CPU", "GPU"):
        raise ValueError(f'device_kind: found {device_kind!r}, expected "CPU" or "GPU"')
    given = {"SPLIT_BY": None, "START_FROM": None, "FREEZE_ENCODER": False} | parameters
    check_parameters(given)
    dataset, written = given["DATASET"], given["DATASET"] == "demo"
    defaults = DEFAULTS[device_kind] | DEFAULTS["demo" if dataset == "demo" else "other"]
    start, network = _find_start(given, defaults)
    values = {name: (defaults | network).get(name) if value is None else value for name, value in given.items()}
    if values["FREEZE_ENCODER"] and not start:
        name, other = named("FREEZE_ENCODER"), named("START_FROM")
        raise ValueError(f"{name}: found True in a training from scratch; give {other}, too, or leave it out")
    return Recipe(
        dataset=dataset,
        data_dir=checked_folder("DATA_DIR", values["DATA_DIR"], written=written),
        archive=checked_archive(values["ARCHIVE"]),
        run_dir=checked_folder("RUN_DIR", values["RUN_DIR"], written=True),
        minutes=float(values["MINUTES"]),
        image_size=tuple(map(int, values["IMAGE_SIZE"])),
        seed=int(values["SEED"]),
        epochs=None if values["EPOCHS"] is None else int(values["EPOCHS"]),
        n_filters=int(values["N_FILTERS"]),
        half_resolution=values["HALF_RESOLUTION"],
        batch_size=int(values["BATCH_SIZE"]),
        size_stages=tuple((float(share), float(fraction)) for share, fraction in values["SIZE_STAGES"]),
        learning_rate=float(values["LEARNING_RATE"]),
        frames_per_drive=int(values["FRAMES_PER_DRIVE"]),
        train_anew=values["TRAIN_ANEW"],
        split_by=values["SPLIT_BY"],
        start_from=start,
        freeze_encoder=values["FREEZE_ENCODER"],
    )


def _find_start(given: dict, defaults: dict) -> tuple[Path | None, dict]:
    """The file of the network to go on from, and those of its switches that the new network needs, too.

    None is the drawn scenes' network for CamVid's photographs, where the other parameters fit it.
    """
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


ENLARGED = 1.25  # from here on it is said: what is added are pixels, not details


def note_better_size(pairs: Sequence[Pair], recipe: Recipe, n_images: int = 20) -> None:
    """Print which IMAGE_SIZE would suit the images better, if there is one.

    It has the proportions of the images, as they are in the middle, and about as many pixels as recipe.image_size, but
    no more than the images. Upright images leave more than a quarter of a wide size grey; small ones are enlarged,
    which takes time and shows nothing new. n_images: about how many of them are looked at.
    """
    sizes = []
    for pair in pairs[:: 1 + len(pairs) // n_images]:
        with Image.open(pair.image) as image:
            sizes.append((image.height, image.width))
    own = np.median(sizes, axis=0)
    enlarged = float(min(recipe.image_size / own))
    n_pixels = min(math.prod(recipe.image_size), math.prod(own))
    step = 2 * SIDE_STEP  # halves of it fit, too
    height = math.sqrt(n_pixels * own[0] / own[1])
    better = tuple(min(max(1, round(side / step)) * step, LARGEST_SIDE) for side in (height, height * own[1] / own[0]))
    shown, larger = _shown_pixels(sizes, recipe.image_size), _shown_pixels(sizes, better)
    filled, size = shown / math.prod(recipe.image_size), "{}x{}".format(*recipe.image_size)
    todo = setting("IMAGE_SIZE", better)
    if enlarged > ENLARGED and math.prod(better) < math.prod(recipe.image_size):
        what = f"images of {own[0]:.0f}x{own[1]:.0f} are enlarged {enlarged:.1f} times to fit {size}"
        print(f"note: {what}; {todo} would show as much in less time")
    elif filled < 0.75 and larger > 1.1 * shown:
        print(f"note: images fill {filled:.0%} of {size}, the rest stays grey; {todo} would show them larger")


def _shown_pixels(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> float:
    """How many pixels of image_size an image fills, in the mean of those of sizes, all (height, width)."""
    boxes = [fitted_box(size, image_size) for size in sizes]
    return float(np.mean([(bottom - top) * (right - left) for top, left, bottom, right in boxes]))
