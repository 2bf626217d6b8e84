"""The folder of a training, found by all that decides its result, and the plan of how long it takes."""

import hashlib
import itertools
import json
import math
import os
import shutil
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from .datasets import Dataset
from .epochs import EPOCH_LADDER, choose_epochs, expected_seconds
from .files import find_changes, note_files, read_json, write_json
from .locking import hold_lock, make_temporary_folder, remove_partial_folders
from .naming import named, setting
from .normalization import PreciseStatistics
from .recipe import Recipe
from .saving import TrainingState
from .speed import Speed, measure_speed
from .states import is_finished
from .training import ProgressiveResizing

LEAST_STEPS = 100  # a training that makes sense has them, unless the images are very simple: benchmarks/README.md


def run_folder(recipe: Recipe, model: keras.Model, dataset: Dataset, **others) -> Path:
    """The folder of exactly this training below recipe.run_dir, made where it is not there, with settings.json in it.

    The settings are all that decides the result: the recipe, the weights that it starts from, the network and the
    optimizer of the compiled model, names and content of the data's files, wherever and however old they are, and
    others: what else was chosen, such as augment=[RandomView()]. The folder's name tells what was asked for; should
    another training have taken it, a number is added, and a note says how the two differ. With recipe.train_anew a
    finished training is left alone and another folder made.
    Raises ValueError, naming RUN_DIR, if the folder can't be made.
    """
    settings = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in _PLACES},
        "start": recipe.start_from and hashlib.sha256(recipe.start_from.read_bytes()).hexdigest(),
        "network": _describe(model),
        "optimizer": model.optimizer.get_config() | {"name": type(model.optimizer).__name__},
        "others": others,
    }
    settings |= {"bits": dataset.bits} if dataset.bits else {}  # for best.keras, too
    settings = json.loads(json.dumps(settings, default=repr))  # as it is read from the file
    files = {
        split: {"/".join(path.parts[-2:]): path for pair in getattr(dataset, split) for path in pair}
        for split in ("train", "validation")
    }
    time_asked = f"{recipe.minutes:g}_minutes" if recipe.epochs is None else f"{recipe.epochs}_epochs"
    height, width = recipe.image_size
    name = f"{recipe.dataset}_{height}x{width}_{recipe.n_filters}_filters_{time_asked}_seed_{recipe.seed}"
    with hold_lock(recipe.run_dir / "new_run", lambda: None) as alone:  # one process at a time looks and makes
        folders = (recipe.run_dir / (name if number == 1 else f"{name}_{number}") for number in itertools.count(1))
        differences = {
            folder: _differences(folder / "settings.json", settings, files)
            for folder in itertools.takewhile(Path.exists, folders)
        }
        same = [folder for folder, found in differences.items() if not found]
        if same and not (recipe.train_anew and is_finished(same[-1])):
            return same[-1]
        folder = recipe.run_dir / (f"{name}_{len(differences) + 1}" if differences else name)
        if same:
            why = f"{named('TRAIN_ANEW')}: {same[-1].name} is finished and stays"
            print(f"note: {why}; this training goes to {folder.name}")
        elif differences:
            closest = min(differences, key=lambda other: len(differences[other]))
            found = "; ".join(differences[closest])
            print(f"note: {closest.name} is of another training ({found}); this one goes to {folder.name}")
        if alone:
            remove_partial_folders(folder)
        _make_folder(folder, settings | {"files": {split: note_files(paths) for split, paths in files.items()}})
    return folder


# The same files in another place are the same data.
_PLACES = ("data_dir", "archive", "run_dir", "train_anew", "start_from")


def _describe(model: keras.Model) -> dict:
    """The layers and how they are connected; their names count on with each network that Python builds."""
    text = json.dumps(json.loads(model.to_json())["config"])
    for number, layer in enumerate(model.layers):
        text = text.replace(f'"{layer.name}"', f'"layer {number}"')
    return json.loads(text)


def _differences(path: Path, settings: dict, files: dict[str, dict[str, Path]]) -> list[str]:
    """In words, what a folder's settings.json has otherwise than this training; [] if it is the same."""
    there, found = read_json(path), []
    try:
        for part in ("recipe", "optimizer", "others"):
            old, new = there[part], settings[part]
            names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            found += [f"{name}: {_say(old.get(name))} there, {_say(new.get(name))} here" for name in names]
        for part, words in (("start", "the weights that it starts from"), ("network", "the layers of the network")):
            found += [words] if there.get(part) != settings[part] else []
        for split, paths in {} if found else files.items():  # to read them takes a while
            changed = sorted(find_changes(there["files"][split], paths))
            found += [f"{len(changed)} of the files to {split}, such as {changed[0]}"] if changed else []
    except (LookupError, TypeError, ValueError, AttributeError):  # it lacks something, or has something else there
        return [f"its {path.name} can't be read"]
    return list(dict.fromkeys(found))  # a learning rate is the recipe's and the optimizer's


def _say(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else textwrap.shorten(str(value), 60)


def _make_folder(folder: Path, settings: dict) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        write_json(partial / "settings.json", settings)
        partial.rename(folder)
    except OSError as error:
        raise ValueError(
            f"{named('RUN_DIR')}: {folder} can't be made ({error.strerror or error}); make its folder writable, or "
            f"give another one as {named('RUN_DIR')}, and run again"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class Plan:
    """How long a training is: epochs, the steps of each, and what is expected of this machine."""

    epochs: int
    steps: int
    speed: Speed


def make_plan(
    run_dir: Path, recipe: Recipe, model: keras.Model, train_batches, validation_batches, resizing: ProgressiveResizing,
    minutes: float | None = None,
) -> Plan:  # fmt: skip
    """Choose the epochs, say why, and keep them in run_dir/plan.json: a training that goes on follows the same plan.

    model: compiled. recipe.epochs is taken as it is, and nothing is timed; otherwise as many epochs are chosen as fit
    into minutes (recipe.long_minutes if None), by what a short epoch takes here with validation, statistics and saving.
    This timing counts, too. An epoch has all train_batches, unless not even one fits: then it has as many steps as fit.
    Where fewer steps fit than LEAST_STEPS, a sentence says how many MINUTES they take.
    """
    path = run_dir / "plan.json"
    if path.exists():
        try:
            kept = read_json(path)
            steps = int(kept.get("steps", len(train_batches)))  # older versions cut no epoch
            plan = Plan(int(kept["epochs"]), steps, Speed(kept["speed"]["start"], tuple(kept["speed"]["epoch"])))
        except (LookupError, TypeError, ValueError, AttributeError):
            todo = "delete it and run again, then the epochs are planned anew"
            raise ValueError(f"{path}: it can't be read; {todo}") from None
        print(f"planned before: {plan.epochs} epochs")
        return plan
    if recipe.epochs:
        plan = Plan(recipe.epochs, len(train_batches), Speed(0, tuple(map(math.prod, resizing.sizes))))
    else:
        minutes = minutes or recipe.long_minutes
        plan = _fit_into_minutes(minutes, recipe, model, train_batches, validation_batches, resizing)
    write_json(run_dir / "plan.json", asdict(plan))
    return plan


def _fit_into_minutes(given: float, recipe: Recipe, model, train_batches, validation_batches, resizing) -> Plan:
    begun = time.perf_counter()
    folder, delete = make_temporary_folder("unet_timing_")
    try:
        state = TrainingState(folder, ProgressiveResizing(recipe.image_size, recipe.size_stages, epochs=2))
        callbacks = [PreciseStatistics(train_batches), state]
        speed = measure_speed(model, train_batches, validation_batches, resizing, callbacks)
    finally:
        delete()
    timing = time.perf_counter() - begun

    def minutes(epochs: int) -> float:
        return (timing + speed.start + expected_seconds(epochs, resizing.stages, speed.epoch)) / 60

    available = 0.95 * given  # a machine is not equally fast all the time
    left, steps = 60 * available - timing - speed.start, len(train_batches)
    epochs = choose_epochs(left, resizing.stages, speed.epoch)
    fits = minutes(epochs) <= available
    if not fits:  # a single epoch, at full size
        steps = max(1, int(steps * left / speed.epoch[-1]))
    cut = (1 - steps / len(train_batches)) * speed.epoch[-1] / 60
    print(
        f"{epochs} epochs of {steps} steps, about {minutes(epochs) - cut:.1f} minutes, "
        f"of which timing a few steps took {timing:.0f} s"
    )
    least = next(n for n in EPOCH_LADDER if n * len(train_batches) >= LEAST_STEPS)
    if epochs < least or not fits:
        needed = math.ceil(10 * minutes(least) / 0.95 * recipe.minutes / given) / 10
        print(
            f"{setting('MINUTES', recipe.minutes)} are few here: photographs take {LEAST_STEPS} steps or more, that is "
            f"{least} epochs; {setting('MINUTES', needed)} give them"
        )
    return Plan(epochs, steps, speed)
