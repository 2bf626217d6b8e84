"""diagnose: why a training failed, from what is in the run's folder and from its data."""

from pathlib import Path

import tensorflow as tf

from .. import diagnosis
from ..augmentation import RandomResizedCrop
from ..checkpoints import read_log
from ..datasets import load_dataset
from ..model import check_image_size
from ..naming import counted
from ..networks import load_model
from ..pipeline import make_batches
from ..recipe import RULES, Recipe
from ..storage import read_json
from .check import check_files


def diagnose(run_dir: Path, data_dir: str, dataset: str | None) -> int:
    """Print the likely causes of what went wrong, and what was looked at.
    run_dir: a run's folder with settings.json and, if it got that far, log.csv and best.keras. dataset: which data set
    is in data_dir; None: that of the run. Returns how many causes were found. Raises ValueError, naming the folder."""
    recipe = _read_recipe(run_dir, data_dir)
    data = load_dataset(
        dataset or recipe.dataset, data_dir, seed=recipe.seed, frames_per_drive=recipe.frames_per_drive,
        split_by=recipe.split_by,
    )  # fmt: skip
    best = run_dir / "best.keras"
    model = load_model(best) if best.is_file() else None
    if model is not None and model.output_shape[-1] != data.labels.n_classes:
        found = f"it has {counted(model.output_shape[-1], 'class')}, but the data set {data.name!r} in {data_dir} has"
        raise ValueError(f"{best}: {found} {data.labels.n_classes}; give the data that it was trained on")
    batches = make_batches(
        data.train, data.labels, tuple(recipe.image_size), recipe.batch_size, mask_size=recipe.output_size,
        shuffle=True, augment=[RandomResizedCrop()], seed=recipe.seed, cache=False,
    )  # fmt: skip
    try:
        result = diagnosis.diagnose(batches, data.labels, read_log(run_dir), model)
    except tf.errors.OpError:  # a file can't be decoded, and TensorFlow does not say which
        good, _ = check_files(data.train, data.labels, "checking train")
        if len(good) == len(data.train):
            raise
        bad = counted(len(data.train) - len(good), "bad pair")
        raise ValueError(f"{data_dir}: {bad}; correct or remove them") from None
    print(result)
    return len(result.findings)


def _read_recipe(run_dir: Path, data_dir: str) -> Recipe:
    path = run_dir / "settings.json"
    try:
        settings = read_json(path)["recipe"]
        for name, value in settings.items():
            is_right, expected, _ = RULES[name.upper()]
            if name == "image_size":  # of any size: earlier versions trained with smaller ones
                check_image_size(name, value)
            elif not is_right(value):
                raise ValueError(f"{name}: found {value!r}, expected {expected}")
        return Recipe(**settings, data_dir=Path(data_dir), archive=None, run_dir=run_dir.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; it is damaged: train anew in another folder") from None
    except (KeyError, TypeError, AttributeError):
        there = "its settings.json can't be read" if run_dir.is_dir() else "there is no such folder"
        raise ValueError(f"{run_dir}: {there}; give the folder of a run, one of those in runs/") from None
