"""The recipe of a training: all parameters, complete; what suits which device and data set where one is None."""

import math
from dataclasses import dataclass
from pathlib import Path

from .naming import named
from .parameters import check_parameters, checked_archive, checked_folder
from .transfer import DRAWN_SCENES, unet_switches

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
    start_from: `.keras` file of the network that training goes on from, by `transfer.take_weights`; None: from scratch.
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
