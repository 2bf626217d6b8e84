"""The folder of a training, found by all that decides its result, and the plan of how long it takes."""

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from .datasets import Dataset
from .epochs import choose_epochs, expected_seconds
from .files import read_json, write_json
from .recipe import Recipe
from .speed import Speed, measure_speed
from .states import is_finished
from .training import ProgressiveResizing


def run_folder(recipe: Recipe, model: keras.Model, dataset: Dataset, **others) -> Path:
    """The folder of exactly this training below recipe.run_dir, made where it is not there, with settings.json in it.

    The settings are all that decides the result: the recipe, the weights that it starts from, the network and the
    optimizer of the compiled model, names, sizes and times of the data's files, and others: what else was chosen, such
    as augment=[RandomView()]. The folder's name tells what was asked for; should another training have taken it, a
    number is added. With recipe.train_anew a finished training is left alone and another folder made.
    """
    settings = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in _PLACES},
        "start": recipe.start_from and hashlib.sha256(recipe.start_from.read_bytes()).hexdigest(),
        "network": _describe(model),
        "optimizer": model.optimizer.get_config() | {"name": type(model.optimizer).__name__},
        "others": others,
        "files": {split: _files(getattr(dataset, split)) for split in ("train", "validation")},
    }
    settings = json.loads(json.dumps(settings, default=repr))  # as it is read from the file
    time_asked = f"{recipe.minutes:g}_minutes" if recipe.epochs is None else f"{recipe.epochs}_epochs"
    height, width = recipe.image_size
    name = f"{recipe.dataset}_{height}x{width}_{recipe.n_filters}_filters_{time_asked}_seed_{recipe.seed}"
    folders = (recipe.run_dir / (name if number == 1 else f"{name}_{number}") for number in itertools.count(1))
    there = list(itertools.takewhile(Path.exists, folders))
    same = [folder for folder in there if read_json(folder / "settings.json") == settings]
    if same and not (recipe.train_anew and is_finished(same[-1])):
        return same[-1]
    folder = recipe.run_dir / (f"{name}_{len(there) + 1}" if there else name)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / "settings.json", settings)
    try:
        partial.rename(folder)
    except OSError:  # another process was quicker: it may be the same training
        shutil.rmtree(partial, ignore_errors=True)
        return run_folder(recipe, model, dataset, **others)
    return folder


# The same files in another place are the same data.
_PLACES = ("data_dir", "archive", "run_dir", "train_anew", "start_from")


def _describe(model: keras.Model) -> dict:
    """The layers and how they are connected; their names count on with each network that Python builds."""
    text = json.dumps(json.loads(model.to_json())["config"])
    for number, layer in enumerate(model.layers):
        text = text.replace(f'"{layer.name}"', f'"layer {number}"')
    return json.loads(text)


def _files(pairs: Sequence) -> dict[str, tuple[int, int]]:
    """{"folder/name": (bytes, time of the last change in nanoseconds)} of pictures and masks."""
    stats = {"/".join(path.parts[-2:]): path.stat() for pair in pairs for path in pair}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@dataclass(frozen=True)
class Plan:
    """How long a training is: epochs, and what is expected of this machine."""

    epochs: int
    minutes: float
    speed: Speed


def make_plan(
    run_dir: Path, recipe: Recipe, model: keras.Model, train_batches, validation_batches, resizing: ProgressiveResizing
) -> Plan:
    """Choose the epochs, say why, and keep them in run_dir/plan.json: a training that goes on follows the same plan.

    model: compiled. recipe.epochs is taken as it is; otherwise as many epochs are chosen as fit into
    recipe.long_minutes, by the time that a few steps of each size take here.
    """
    kept = read_json(run_dir / "plan.json")
    if kept:
        print(f"planned before: {kept['epochs']} epochs")
        start, step, epoch = (kept["speed"][name] for name in ("start", "step", "epoch"))
        return Plan(kept["epochs"], kept["minutes"], Speed(start, tuple(step), tuple(epoch)))
    begun = time.perf_counter()
    speed = measure_speed(model, train_batches, validation_batches, resizing)
    measuring = time.perf_counter() - begun
    for (height, width), step in zip(resizing.sizes, speed.step, strict=True):
        print(f"{height}x{width}: {recipe.batch_size / step:.0f} images/s in training")
    available = 0.95 * 60 * recipe.long_minutes - measuring - speed.start  # saving the networks takes time, too
    epochs = recipe.epochs or choose_epochs(available, resizing.stages, speed.epoch)
    seconds = speed.start + expected_seconds(epochs, resizing.stages, speed.epoch)
    print(f"{epochs} epochs, about {seconds / 60:.1f} minutes")
    if recipe.epochs is None and seconds > available + speed.start:
        print(f"MINUTES = {recipe.minutes:g} are too few here: {epochs} epochs are the least, and take longer")
    plan = Plan(epochs, seconds / 60, speed)
    write_json(run_dir / "plan.json", asdict(plan))
    return plan
