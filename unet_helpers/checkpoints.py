"""The folder of a run: how it is found, what is saved after each epoch, and how a run is resumed."""

import atexit
import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import textwrap
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import keras
import numpy as np

from .datasets import Dataset
from .labels import LabelMap
from .model import PreciseStatistics, with_keras_layers_only
from .naming import named, setting
from .networks import save_network
from .recipe import EPOCH_LADDER, LEAST_FREE, Recipe, choose_epochs, expected_seconds
from .storage import (
    find_changes,
    hold_lock,
    make_temporary_folder,
    note_files,
    read_json,
    remove_partial_files,
    remove_partial_folders,
    write_json,
    write_whole,
)
from .training import ProgressiveResizing, Speed, measure_speed

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what np.load and JSON raise


class Checkpoint(NamedTuple):
    """A training after an epoch. log: loss and mIoU of each epoch. best: epoch, image_size and val_mIoU of the best
    network, None before the first epoch. finished: whether the training has come to its end. variables: all that
    training changes, none if finished. best_weights: of the best network.
    """

    log: list[dict[str, float]]
    best: dict | None
    finished: bool
    variables: Sequence[np.ndarray]
    best_weights: list[np.ndarray]


def write_checkpoint(run_dir: Path, state: Checkpoint) -> None:
    """Replace the state, keeping the one before until the training is finished. Raises OSError."""
    meta = {
        "log": state.log, "best": state.best, "finished": state.finished,
        "variables": len(state.variables), "best_weights": len(state.best_weights),
    }  # fmt: skip
    arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    arrays |= {f"variable{n}": value for n, value in enumerate(state.variables)}
    arrays |= {f"best{n}": value for n, value in enumerate(state.best_weights)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    path, before = run_dir / "state.npz", run_dir / "state_before.npz"
    write_whole(run_dir / "state_next.npz", content.getbuffer())
    if path.exists():
        os.replace(path, before)
    os.replace(run_dir / "state_next.npz", path)
    if state.finished:
        before.unlink(missing_ok=True)


def read_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The newest state that can be read, None if there is none. One that can't be read is put aside, which is said."""
    return next(filter(None, (_read(run_dir / name) for name in ("state.npz", "state_before.npz"))), None)


def _read(path: Path) -> Checkpoint | None:
    """Content of a state; None, and the file is put aside, if it can't be read to its last byte."""
    try:
        if not path.exists():
            return None
        with np.load(path) as arrays:  # a zip: each array has a checksum
            meta = json.loads(arrays["meta"].tobytes())
            variables = [arrays[f"variable{n}"] for n in range(meta["variables"])]
            best_weights = [arrays[f"best{n}"] for n in range(meta["best_weights"])]
            return Checkpoint(meta["log"], meta["best"], meta["finished"], variables, best_weights)
    except _UNREADABLE as error:
        aside = path.with_name(f"unreadable_{path.name}")
        with contextlib.suppress(OSError):
            os.replace(path, aside)
        print(f"{path.name} can't be read ({error}): it is put aside as {aside.name}")
        return None


def is_finished(run_dir: Path) -> bool:
    """Whether the training of this folder has come to its end."""
    try:
        with np.load(run_dir / "state.npz") as arrays:
            return json.loads(arrays["meta"].tobytes())["finished"]
    except _UNREADABLE:
        return False


_locks: dict[Path, contextlib.ExitStack] = {}  # of the folders that this process trains in
atexit.register(lambda: [lock.close() for lock in _locks.values()])  # of a fit that was interrupted


class RunCheckpoint(keras.callbacks.Callback):
    """Saves a training after each epoch and goes on from there: `model.fit(..., initial_epoch=state.resume(model))`.

    In run_dir: state.npz, all that the training needs to go on, in one file that is replaced whole, and the one before
    it. From it follow best.keras and best.json, the network with the highest validation mIoU among those of the largest
    pictures so far, made of Keras's own layers without loss and optimizer, so that it loads without this package; and
    log.csv, loss and mIoU of each epoch. So all of them belong to the same moment, whenever the process is killed.
    labels: the classes, for best.keras, from which `networks.load_network` gets all that prediction needs.
    Raises RuntimeError after an epoch that leaves weights which are no finite numbers; only log.csv tells of that one.
    """

    def __init__(self, run_dir: str | Path, resizing: ProgressiveResizing, labels: LabelMap | None = None):
        super().__init__()
        self.run_dir, self.resizing, self.labels = Path(run_dir), resizing, labels
        self.log: list[dict[str, float]] = []
        self.best: dict | None = None  # epoch, image_size and val_mIoU of the best network
        self.best_weights: list[np.ndarray] = []
        self.best_written: int | None = None  # the epoch whose network best.keras holds
        self.copy: keras.Model | None = None  # what is written to best.keras: cloned once, for that takes a while
        self.finished = False

    # ---- going on ----

    def resume(self, model: keras.Model) -> int:
        """Bring a compiled model to where the training stood and return the number of epochs that are done.

        A finished training is not repeated: all epochs are done then, and the model has its best weights. From here on
        until fit ends, nobody else may train in this folder: raises RuntimeError if another process does, or if a new
        training can't be saved.
        """
        self._lock()
        model.optimizer.build(model.trainable_variables)
        state = read_checkpoint(self.run_dir)
        if state is None:  # also where an epoch was interrupted before the first was done
            self.log, self.best, self.best_weights, self.finished = [], None, [], False
            if not self._save(model):  # it could become hours for nothing
                self._unlock()
                todo = f"make room, or give another {named('RUN_DIR')}"
                raise RuntimeError(f"{self.run_dir}: nothing can be saved, so nothing was trained; {todo}")
            return 0
        self.log, self.best, self.finished, variables, self.best_weights = state
        self._write_best(model)
        self._write_log()
        if self.finished:
            self.resizing.on_epoch_begin(self.resizing.epochs - 1)  # what follows sees pictures of the last size
            model.set_weights(self.best_weights)
            again = setting("TRAIN_ANEW", True)
            print(f"trained before, {len(self.log)} epochs: its network is loaded ({again} trains another)")
            return self.resizing.epochs
        for variable, value in zip(_variables(model), variables, strict=True):
            variable.assign(value)
        if self.log:
            print(f"going on after epoch {len(self.log)}")
        return len(self.log)

    # ---- while training ----

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.get_weights()
        if not all(np.isfinite(array).all() for array in weights):  # mIoU is a number even then: it would be the best
            self._refuse_diverged(epoch, logs)
        size = list(self.resizing.sizes[self.resizing.stage])
        beaten = self.best["val_mIoU"] if self.best and self.best["image_size"] == size else -math.inf
        if logs["val_mIoU"] > beaten:  # scores of smaller pictures are others: a larger size always begins anew
            self.best = {"epoch": epoch + 1, "image_size": size, "val_mIoU": float(logs["val_mIoU"])}
            self.best_weights = weights
        self._log_epoch(epoch, logs)
        self.finished = epoch + 1 == self.resizing.epochs
        if self._save(self.model):
            self._write_log()
            if self.best["epoch"] != self.best_written:  # also one that a full disk did not take in its epoch
                self._write_best(self.model)

    def on_train_end(self, logs=None):
        self._unlock()

    def _log_epoch(self, epoch: int, logs: dict) -> None:
        self.log.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})

    def _refuse_diverged(self, epoch: int, logs: dict) -> NoReturn:
        self._log_epoch(epoch, logs)
        self._write_log()
        self._unlock()
        raise RuntimeError(
            f"{named('LEARNING_RATE')}: the training diverged in epoch {epoch + 1}: the network has weights that are "
            "no finite numbers, and no further epoch mends that; give a tenth of it and train again. "
            f"{self.run_dir} keeps {f'what was learned until epoch {epoch}' if epoch else 'only a log'}"
        )

    def _lock(self) -> None:
        def refuse():
            raise RuntimeError(
                f"another process is training in {self.run_dir}: wait until it ends, or give another "
                f"{named('RUN_DIR')} or {named('SEED')}"
            )

        self._unlock()  # an interrupted fit has not done it
        _locks[self.run_dir] = contextlib.ExitStack()
        if _locks[self.run_dir].enter_context(hold_lock(self.run_dir, refuse)):
            remove_partial_files(self.run_dir)

    def _unlock(self) -> None:
        _locks.pop(self.run_dir, contextlib.ExitStack()).close()

    # ---- files ----

    def _save(self, model: keras.Model) -> bool:
        """Replace the state, keeping the one before; False, and a sentence, if the disk does not take it."""
        variables = [] if self.finished else [np.asarray(variable.value) for variable in _variables(model)]
        state = Checkpoint(self.log, self.best, self.finished, variables, self.best_weights)
        return self._try(lambda: write_checkpoint(self.run_dir, state))

    def _write_log(self) -> None:
        if self.log:
            text = io.StringIO()
            table = csv.DictWriter(text, self.log[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(self.log)
            self._try(lambda: write_whole(self.run_dir / "log.csv", text.getvalue().encode()))

    def _write_best(self, model: keras.Model) -> None:
        if self.best is None:
            return
        self.copy = self.copy or with_keras_layers_only(model)
        self.copy.set_weights(self.best_weights)

        def write():
            bits = (read_json(self.run_dir / "settings.json") or {}).get("bits")
            save_network(self.run_dir / "best.keras", self.copy, self.labels, tuple(self.best["image_size"]), bits)
            write_json(self.run_dir / "best.json", self.best)

        if self._try(write):
            self.best_written = self.best["epoch"]

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            if shutil.disk_usage(self.run_dir).free < LEAST_FREE:  # HDF5 on a full disk can end the process
                raise OSError(0, "the disk is full")
            write()
        except OSError as error:
            reason = error.strerror or error
            print(f"{self.run_dir}: the training can't be saved ({reason}): it goes on and tries again each epoch")
            return False
        return True


def _variables(model: keras.Model) -> list:
    """All that training changes: weights, states of random layers, and the optimizer's variables."""
    return [*model.variables, *model.optimizer.variables]


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


LEAST_STEPS = 100  # a training that makes sense has them, unless the images are very simple: benchmarks/README.md


def run_folder(recipe: Recipe, model: keras.Model, dataset: Dataset, **others) -> Path:
    """The folder of exactly this training below recipe.run_dir, made where it is not there, with settings.json in it.

    The settings are all that decides the result: the recipe, the weights that it starts from, the network and the
    optimizer of the compiled model, names and content of the data's files, wherever and however old they are, and
    others: what else was chosen, such as augment=[RandomResizedCrop()]. The folder's name tells what was asked for; if
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
        state = RunCheckpoint(folder, ProgressiveResizing(recipe.image_size, recipe.size_stages, epochs=2))
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
