"""The folder of a run: how it is found, what is saved after each epoch, and how a run is resumed."""

import atexit
import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from . import storage
from .datasets import Dataset
from .devices import alone
from .labels import LabelMap
from .model import PreciseStatistics, with_keras_layers_only
from .naming import counted, named, setting
from .networks import save_network
from .notebook import NotebookError, interruptible
from .processes import from_first, is_first
from .recipe import EPOCH_LADDER, LEAST_FREE, Recipe, choose_epochs, expected_seconds
from .training import ProgressiveResizing, Speed, measure_speed

LEAST_STEPS = 100  # that a useful training takes, unless the images are very simple: benchmarks/README.md
NOT_OF_THE_RESULT = ("data_dir", "archive", "run_dir", "train_anew", "start_from")  # of a recipe
WRONG_TYPES = (LookupError, TypeError, ValueError, AttributeError)  # what JSON of an unexpected structure raises


class Checkpoint(NamedTuple):
    """A training after an epoch, as state.npz holds it."""

    log: list[dict[str, float]]  # loss and mIoU of each epoch
    best: dict | None  # epoch, image_size and val_mIoU of the best network; None before the first epoch
    finished: bool  # whether the training has reached its last epoch
    variables: Sequence[np.ndarray]  # all that training changes; empty if finished
    best_weights: list[np.ndarray]  # of the best network


def write_checkpoint(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Write state.npz, whole or not at all. Raises OSError."""
    n_arrays = {"variables": len(checkpoint.variables), "best_weights": len(checkpoint.best_weights)}
    arrays = {"meta": np.frombuffer(json.dumps(checkpoint._asdict() | n_arrays).encode(), np.uint8)}
    arrays |= {f"variable{n}": value for n, value in enumerate(checkpoint.variables)}
    arrays |= {f"best{n}": value for n, value in enumerate(checkpoint.best_weights)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    storage.write_whole(run_dir / "state.npz", content.getbuffer())


def read_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The checkpoint of a run, None if there is none. A damaged one is kept aside with its network; a line says so."""
    path = run_dir / "state.npz"
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file) as arrays:  # a zip: each array has a checksum
            meta = json.loads(arrays["meta"].tobytes())
            variables = [arrays[f"variable{n}"] for n in range(meta["variables"])]
            best_weights = [arrays[f"best{n}"] for n in range(meta["best_weights"])]
            return Checkpoint(meta["log"], meta["best"], meta["finished"], variables, best_weights)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # of np.load and JSON
        for name in ("state.npz", "best.keras", "best.json", "log.csv"):  # the new training writes these
            with contextlib.suppress(OSError):
                os.replace(run_dir / name, run_dir / f"earlier_{name}")
        print(f"{path} can't be read ({error}): the training begins anew; what is there is kept as earlier_*")
        return None


_locks: dict[Path, contextlib.ExitStack] = {}  # of the runs that this process trains
atexit.register(lambda: [lock.close() for lock in _locks.values()])  # after an interrupted fit


class RunCheckpoint(keras.callbacks.Callback):
    """Saves a run after each epoch and resumes it: `model.fit(..., initial_epoch=checkpoint.resume(model))`.
    In run_dir: state.npz, a `Checkpoint`. All else is written anew from it, so that after a kill everything belongs to
    the same epoch: best.keras and best.json, the network with the highest validation mIoU at the largest image size so
    far; and log.csv. labels: of the classes, for best.keras.
    Of several processes, only the first reads and writes there.
    Raises RuntimeError after an epoch with weights that are not finite; only log.csv records that epoch."""

    def __init__(self, run_dir: str | Path, resizing: ProgressiveResizing, labels: LabelMap | None = None):
        super().__init__()
        self.run_dir, self.resizing, self.labels = Path(run_dir), resizing, labels
        self.log, self.best, self.finished, self.best_weights = [], None, False, []  # as in `Checkpoint`
        self.best_written: int | None = None  # the epoch whose network is in best.keras
        self.copy: keras.Model | None = None  # is written to best.keras; cloned once because that takes time

    def resume(self, model: keras.Model) -> int:
        """Restore a compiled model to the checkpoint and return the number of finished epochs.
        A finished training is not repeated: the model gets its best weights, and all epochs count as finished. The run
        is locked until fit ends. Raises RuntimeError if another process trains it, or if nothing can be saved."""
        model.optimizer.build(model.trainable_variables)
        found = from_first(lambda: self._read(model))
        self.log, self.best, self.finished, variables, self.best_weights = found
        if self.best:
            self._write_best(model)
        self._write_log()
        if self.finished:
            self.resizing.on_epoch_begin(self.resizing.epochs - 1)  # later cells see batches of the last size
            model.set_weights(self.best_weights)
            again = setting("TRAIN_ANEW", True)
            print(f"trained before, {counted(len(self.log), 'epoch')}: its network is loaded ({again} trains another)")
            return self.resizing.epochs
        for variable, value in zip(_variables(model), variables, strict=True):
            variable.assign(value)
        if self.log:
            print(f"resuming after epoch {len(self.log)}")
        return len(self.log)

    def _read(self, model: keras.Model) -> Checkpoint:
        """The checkpoint; a new run gets one at once, to see whether it can be saved."""
        self._lock()
        found = read_checkpoint(self.run_dir)
        self.log, self.best, self.finished, self.best_weights = [], None, False, []  # of an earlier fit, if any
        if found is None and not self._save(model):
            self._unlock()  # else hours of training could be lost
            todo = f"make room, or give another {named('RUN_DIR')}"
            raise RuntimeError(f"{self.run_dir}: nothing can be saved, so nothing was trained; {todo}")
        return found or Checkpoint([], None, False, _values(model), [])

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """During the block, an interrupt becomes one line that says what is saved, and the run is unlocked."""
        with interruptible(self._when_interrupted):
            yield

    def _when_interrupted(self) -> str:
        self._unlock()
        again = named("run the cell again")
        if not self.log:
            return f"no epoch has ended, so nothing is saved yet; {again}"
        return f"{counted(len(self.log), 'epoch')} saved in {self.run_dir}; {again} to resume"

    def _lock(self) -> None:
        def refuse():
            todo = f"wait until it ends, or give another {named('RUN_DIR')} or {named('SEED')}"
            raise RuntimeError(f"another process is training in {self.run_dir}: {todo}")

        self._unlock()  # an interrupted fit has not done it
        lock = _locks[self.run_dir] = contextlib.ExitStack()
        if lock.enter_context(storage.hold_lock(self.run_dir, refuse)):
            storage.remove_partial_files(self.run_dir)

    def _unlock(self) -> None:
        _locks.pop(self.run_dir, contextlib.ExitStack()).close()

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.get_weights()
        self.log.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        if not all(np.isfinite(array).all() for array in weights):  # mIoU may still be a number, even the best
            self._write_log()
            self._unlock()
            found = f"the training diverged in epoch {epoch + 1}: its weights are not finite"
            todo = f"give a tenth of it and train again; {self.run_dir} keeps what was learned before"
            raise RuntimeError(f"{named('LEARNING_RATE')}: {found}; {todo}")
        size = list(self.resizing.sizes[self.resizing.stage])
        beaten = self.best["val_mIoU"] if self.best and self.best["image_size"] == size else -math.inf
        if logs["val_mIoU"] > beaten:  # scores at a smaller size do not compare: each larger size starts anew
            self.best = {"epoch": epoch + 1, "image_size": size, "val_mIoU": float(logs["val_mIoU"])}
            self.best_weights = weights
        self.finished = epoch + 1 == self.resizing.epochs
        if self._save(self.model):
            self._write_log()
            if self.best["epoch"] != self.best_written:  # also an earlier one, if the disk was full then
                self._write_best(self.model)

    def on_train_end(self, logs=None):
        self._unlock()

    def _save(self, model: keras.Model) -> bool:
        variables = [] if self.finished else _values(model)
        checkpoint = Checkpoint(self.log, self.best, self.finished, variables, self.best_weights)
        return self._try(lambda: write_checkpoint(self.run_dir, checkpoint))

    def _write_log(self) -> None:
        if self.log:
            rows = [self.log[0].keys(), *(epoch.values() for epoch in self.log)]
            text = "".join(",".join(map(str, row)) + "\n" for row in rows)
            self._try(lambda: storage.write_whole(self.run_dir / "log.csv", text.encode()))

    def _write_best(self, model: keras.Model) -> None:
        def write():
            with alone():
                self.copy = self.copy or with_keras_layers_only(model)
                self.copy.set_weights(self.best_weights)
            known = storage.read_json(self.run_dir / "settings.json") or {}
            path, size = self.run_dir / "best.keras", tuple(self.best["image_size"])
            save_network(path, self.copy, self.labels, size, known.get("bits"), known.get("about", {}) | self.best)
            storage.write_json(self.run_dir / "best.json", self.best)

        if self._try(write):
            self.best_written = self.best["epoch"]

    def _try(self, write: Callable[[], None]) -> bool:
        if not is_first():
            return True
        try:
            if shutil.disk_usage(self.run_dir).free < LEAST_FREE:  # HDF5 on a full disk can end the process
                raise OSError(0, "the disk is full")
            write()
            return True
        except OSError as error:
            reason = error.strerror or error
            print(f"{self.run_dir}: the training can't be saved ({reason}): it continues and tries again each epoch")
            return False


def _variables(model: keras.Model) -> list:  # all that training changes, also the states of random layers
    of_schedule = getattr(model.optimizer, "of_schedule", [])  # the plan knows the number of steps
    return [*model.variables, *(v for v in model.optimizer.variables if not any(v is known for known in of_schedule))]


def _values(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(variable.value) for variable in _variables(model)]


def read_log(run_dir: str | Path) -> dict[str, np.ndarray] | None:
    """The columns of a run's log.csv, one number an epoch; None where no epoch was finished."""
    path = Path(run_dir) / "log.csv"
    if not path.is_file() or not path.stat().st_size:
        return None
    table = np.genfromtxt(path, delimiter=",", names=True)
    return {name: np.atleast_1d(table[name]) for name in table.dtype.names}


def load_best(run_dir: str | Path, image_size: tuple[int, int]) -> tuple[keras.Model, tuple[int, int]]:
    """The best network of a run and the (height, width) of the images that it was scored on.

    image_size: the largest one planned; a line says if the training ended before it. Raises ValueError without epochs.
    """
    best = storage.read_json(Path(run_dir) / "best.json")
    if best is None:
        raise NotebookError(f"{run_dir}: no epoch has ended, so no network is saved; run the training's cell again")
    size = tuple(best["image_size"])
    if size != tuple(image_size):
        print("The training ended before its last image size: the network is the best of those at {}x{}.".format(*size))
    return keras.models.load_model(Path(run_dir) / "best.keras"), size


def run_folder(recipe: Recipe, model: keras.Model, dataset: Dataset, **others) -> Path:
    """The folder of exactly this training below recipe.run_dir; a new one gets a settings.json.
    The settings are all that decides the result: the recipe, the file of the initial weights, network and optimizer of
    the compiled model, names and content of the data's files, and others, such as augment=[RandomResizedCrop()]. If
    another training has the folder's name, a number is added, and a note names what differs. With recipe.train_anew a
    finished training gets a new folder, too. Raises ValueError if the folder can't be made."""
    settings, splits = _settings(recipe, model, dataset, others), ("train", "validation")
    files = {s: {"/".join(path.parts[-2:]): path for pair in getattr(dataset, s) for path in pair} for s in splits}
    time_asked = f"{recipe.minutes:g}_minutes" if recipe.epochs is None else f"{recipe.epochs}_epochs"
    height, width = recipe.image_size
    name = f"{recipe.dataset}_{height}x{width}_{recipe.n_filters}_filters_{time_asked}_seed_{recipe.seed}"
    with storage.hold_lock(recipe.run_dir / "new_run", lambda: None) as alone:  # one process at a time
        folders = (recipe.run_dir / (name if number == 1 else f"{name}_{number}") for number in itertools.count(1))
        there = list(itertools.takewhile(Path.exists, folders))
        differences = {folder: _differences(folder / "settings.json", settings, files) for folder in there}
        same = [folder for folder in there if not differences[folder]]
        newest = read_checkpoint(same[-1]) if same and recipe.train_anew else None
        if same and not (newest and newest.finished):
            return same[-1]
        folder = recipe.run_dir / (f"{name}_{len(there) + 1}" if there else name)
        if there:
            closest, found = min(differences.items(), key=lambda item: len(item[1]))
            why = f"differs in {', '.join(found)}" if found else "is finished and stays"
            print(f"note: {closest.name} {why}; this training goes to {folder.name}")
        if alone:
            storage.remove_partial_folders(folder)
        settings["files"] = {split: storage.note_files(paths) for split, paths in files.items()}
        try:
            with storage.write_folder(folder) as new:
                storage.write_json(new / "settings.json", settings)
        except OSError as error:
            found = f"{named('RUN_DIR')}: {folder} can't be made ({error.strerror or error})"
            raise ValueError(f"{found}; make its folder writable, or give another one, and run again") from None
    return folder


def _settings(recipe: Recipe, model: keras.Model, dataset: Dataset, others: dict) -> dict:
    """What settings.json holds besides the data's files, as it is read back from JSON."""
    network = json.dumps(json.loads(model.to_json())["config"])
    for number, layer in enumerate(model.layers):  # Keras numbers layer names through a session
        network = network.replace(f'"{layer.name}"', f'"layer {number}"')
    settings = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in NOT_OF_THE_RESULT},
        "start": recipe.start_from and hashlib.sha256(recipe.start_from.read_bytes()).hexdigest(),
        "network": json.loads(network),
        "optimizer": model.optimizer.get_config() | {"name": type(model.optimizer).__name__},
        "others": others,
    }
    start = recipe.start_from and recipe.start_from.name
    settings["about"] = {"data_set": recipe.dataset, "n_images": len(dataset.train), "start": start}  # for best.keras
    settings |= {"bits": dataset.bits} if dataset.bits else {}  # for best.keras, too
    if (void := dataset.labels.void_pixels) is not None:
        settings["others"] = others | {"void pixels": hashlib.sha256(void.tobytes()).hexdigest()}
    return json.loads(json.dumps(settings, default=repr))


def _differences(path: Path, settings: dict, files: dict[str, dict[str, Path]]) -> list[str]:
    """In what the training of a settings.json differs from this one; [] if it is the same."""
    there = storage.read_json(path)
    try:
        parts = {"start": "the initial weights", "network": "the layers of the network", "optimizer": "the optimizer"}
        found = [words for part, words in parts.items() if there.get(part) != settings[part]]
        for part in ("recipe", "others"):
            old, new = there[part], settings[part]
            found += sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        for split, paths in {} if found else files.items():  # hashing them takes time
            found += [f"{name} ({split})" for name in storage.find_changes(there["files"][split], paths)][:1]
        return found
    except WRONG_TYPES:
        return [f"{path.name}, which can't be read"]


@dataclass(frozen=True)
class Plan:
    """How long a training is."""

    epochs: int
    steps: int  # of each epoch
    speed: Speed  # of this machine


def make_plan(
    run_dir: Path, recipe: Recipe, model: keras.Model, train_batches, validation_batches, resizing: ProgressiveResizing,
    minutes: float | None = None,
) -> Plan:  # fmt: skip
    """Choose the epochs, print why, and keep them in run_dir/plan.json, which a resumed training follows.

    model: compiled. recipe.epochs, if given, is taken without timing. Otherwise as many epochs are chosen as fit into
    minutes (default: recipe.long_minutes) at the speed of a short epoch here; the timing itself counts. If not even one
    fits, it is cut to the steps that do. If fewer steps than LEAST_STEPS fit, a line says how many MINUTES they take.
    """
    path = run_dir / "plan.json"
    if kept := from_first(lambda: _read_plan(path)):
        print(f"planned before: {counted(kept.epochs, 'epoch')}")
        return kept
    if recipe.epochs:
        plan = Plan(recipe.epochs, len(train_batches), Speed(tuple(map(math.prod, resizing.sizes))))
    else:
        minutes = minutes or recipe.long_minutes
        plan = _fit_into_minutes(minutes, recipe, model, train_batches, validation_batches, resizing)

    def keep() -> Plan:
        storage.write_json(path, asdict(plan))
        return plan

    return from_first(keep)


def _read_plan(path: Path) -> Plan | None:
    if not path.exists():
        return None
    try:
        kept = storage.read_json(path)
        return Plan(int(kept["epochs"]), int(kept["steps"]), Speed(tuple(kept["speed"]["epoch"])))
    except WRONG_TYPES:
        raise ValueError(f"{path}: it can't be read; delete it and run again to plan the epochs anew") from None


def _fit_into_minutes(given: float, recipe: Recipe, model, train_batches, validation_batches, resizing) -> Plan:
    begun, n_steps = time.perf_counter(), len(train_batches)
    with tempfile.TemporaryDirectory(prefix="unet_timing_", ignore_cleanup_errors=True) as folder:
        checkpoint = RunCheckpoint(folder, ProgressiveResizing(recipe.image_size, recipe.size_stages, epochs=2))
        callbacks = [PreciseStatistics(train_batches), checkpoint]
        with interruptible(lambda: f"nothing is lost; {named('run the cell again')}"):
            speed = measure_speed(model, train_batches, validation_batches, resizing, callbacks)
    spent = time.perf_counter() - begun

    def minutes(epochs: int, steps: int = n_steps) -> float:
        return (spent + steps / n_steps * expected_seconds(epochs, resizing.stages, speed.epoch)) / 60

    left = 60 * 0.95 * given - spent  # a machine's speed varies
    epochs, steps = choose_epochs(left, resizing.stages, speed.epoch), n_steps
    if epochs == 1:  # at full size
        steps = max(1, min(n_steps, int(n_steps * left / speed.epoch[-1])))
    planned = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}, about {minutes(epochs, steps):.1f} minutes"
    print(f"{planned}, of which the timing took {spent:.0f} s")
    least = next(n for n in EPOCH_LADDER if n * n_steps >= LEAST_STEPS)
    if epochs * steps < least * n_steps:
        needed = math.ceil(10 * minutes(least) / 0.95 * recipe.minutes / given) / 10
        few = f"{setting('MINUTES', recipe.minutes)} is short here: photographs take {LEAST_STEPS} steps or more"
        print(f"{few}, that is {counted(least, 'epoch')}; {setting('MINUTES', needed)} is enough")
    return Plan(epochs, steps, speed)
