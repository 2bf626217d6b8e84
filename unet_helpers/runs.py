"""The folder of a training: settings.json, plan.json, log.csv, best.keras, and what goes on after an interruption."""

import itertools
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from .datasets import Dataset
from .normalization import with_keras_layers_only
from .recipe import Recipe, choose_epochs, expected_seconds
from .training import ProgressiveResizing, Speed, measure_speed


def run_folder(recipe: Recipe, model: keras.Model, dataset: Dataset, **others) -> Path:
    """The folder of exactly this training below recipe.run_dir, made where it is not there, with settings.json in it.

    The settings are all that decides the result: the recipe, the network and the optimizer of the compiled model,
    names, sizes and times of the data's files, and others: what else was chosen, such as augment=[RandomView()]. The
    folder's name tells what was asked for; should another training have taken it, a number is added.
    """
    settings = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in _PLACES},
        "network": _describe(model),
        "optimizer": model.optimizer.get_config() | {"name": type(model.optimizer).__name__},
        "others": others,
        "files": {split: _files(getattr(dataset, split)) for split in ("train", "validation")},
    }
    settings = json.loads(json.dumps(settings, default=repr))  # as it is read from the file
    time_asked = f"{recipe.minutes:g}_minutes" if recipe.epochs is None else f"{recipe.epochs}_epochs"
    height, width = recipe.image_size
    name = f"{recipe.dataset}_{height}x{width}_{recipe.n_filters}_filters_{time_asked}_seed_{recipe.seed}"
    for number in itertools.count(1):
        folder = recipe.run_dir / (name if number == 1 else f"{name}_{number}")
        if not folder.exists():
            folder.mkdir(parents=True)
            write_json(folder / "settings.json", settings)
        if read_json(folder / "settings.json") == settings:
            return folder


_PLACES = ("data_dir", "archive", "run_dir")  # the same files in another place are the same data


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


def write_json(path: Path, content) -> None:
    """Write a file whole or not at all: whoever reads it finds the old content or the new."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path):
    """Content of a file, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


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

    model: compiled. recipe.epochs is taken as it is; otherwise as many epochs are chosen as fit into recipe.minutes,
    by the time that a few steps of each size take here.
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
    available = 0.95 * 60 * recipe.minutes - measuring - speed.start  # saving the networks takes time, too
    epochs = recipe.epochs or choose_epochs(available, resizing.stages, speed.epoch)
    seconds = speed.start + expected_seconds(epochs, resizing.stages, speed.epoch)
    print(f"{epochs} epochs, about {seconds / 60:.1f} minutes")
    if recipe.epochs is None and seconds > available + speed.start:
        print(f"MINUTES = {recipe.minutes:g} are too few here: {epochs} epochs are the least, and take longer")
    plan = Plan(epochs, seconds / 60, speed)
    write_json(run_dir / "plan.json", asdict(plan))
    return plan


class BestNetwork(keras.callbacks.Callback):
    """Saves the network with the highest validation mIoU among those of the largest pictures so far, as best.keras.

    Scores of smaller pictures are others: the first epoch of a larger size always replaces what was there. The file
    holds Keras's own layers, without loss and optimizer: it loads where this package is not, too. best.json tells its
    epoch, size and score; with resumes, it is the score to beat.
    """

    def __init__(self, run_dir: Path, resizing: ProgressiveResizing, resumes: bool = False):
        super().__init__()
        self.run_dir, self.resizing, self.copy = run_dir, resizing, None
        before = read_json(run_dir / "best.json") if resumes else None
        self.best = before["val_mIoU"] if before else -math.inf
        self.stage = resizing.sizes.index(tuple(before["image_size"])) if before else 0

    def on_epoch_end(self, epoch, logs=None):
        if self.resizing.stage > self.stage:
            self.best, self.stage = -math.inf, self.resizing.stage
        if logs["val_mIoU"] > self.best:
            self.best = float(logs["val_mIoU"])
            self.copy = self.copy or with_keras_layers_only(self.model)
            self.copy.set_weights(self.model.get_weights())
            partial = self.run_dir / "best.partial.keras"
            self.copy.save(partial)
            os.replace(partial, self.run_dir / "best.keras")
            size = self.resizing.sizes[self.resizing.stage]
            write_json(self.run_dir / "best.json", {"epoch": epoch + 1, "image_size": size, "val_mIoU": self.best})


def load_best(run_dir: str | Path, image_size: tuple[int, int]) -> tuple[keras.Model, tuple[int, int]]:
    """The best network of a run and the size, (height, width), of the pictures that it was scored on.

    image_size: the largest that was planned; a training that ended before is said to have.
    Raises ValueError, naming the folder, if no epoch was finished.
    """
    best = read_json(Path(run_dir) / "best.json")
    if best is None:
        raise ValueError(f"{run_dir}: no epoch was finished here, so no network was saved; run the training cell again")
    if tuple(best["image_size"]) != tuple(image_size):
        height, width = best["image_size"]
        print(f"The training ended before its last size: the network is the best of those that saw {height}x{width}.")
    return keras.models.load_model(Path(run_dir) / "best.keras"), tuple(best["image_size"])


def make_callbacks(
    run_dir: str | Path, resizing: ProgressiveResizing, patience: int = 20
) -> list[keras.callbacks.Callback]:
    """What happens after each epoch, in run_dir.

    best.keras, best.json: see `BestNetwork`. log.csv: loss and mIoU of each epoch. tensorboard/: the same for
    TensorBoard. backup/: the state from which `fit` goes on after an interruption, deleted when it ends. Training stops
    early after patience epochs of full size without a better validation mIoU.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    resumes = (run_dir / "backup").is_dir() and any((run_dir / "backup").iterdir())
    return [
        keras.callbacks.BackupAndRestore(run_dir / "backup"),
        resizing,
        BestNetwork(run_dir, resizing, resumes),
        keras.callbacks.EarlyStopping(
            monitor="val_mIoU", mode="max", patience=patience, start_from_epoch=resizing.full_size_epoch
        ),
        keras.callbacks.CSVLogger(run_dir / "log.csv", append=resumes),
        keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False),
    ]
