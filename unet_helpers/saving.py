"""What a training leaves behind, whole at every moment: its state, its log, its best network; and how it goes on."""

import atexit
import contextlib
import csv
import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import keras
import numpy as np

from .files import read_json, remove_partial_files, write_json, write_whole
from .labels import LabelMap
from .locking import hold_lock
from .naming import named, setting
from .networks import save_network
from .normalization import with_keras_layers_only
from .parameters import LEAST_FREE
from .states import State, read_state, write_state
from .training import ProgressiveResizing

_locks: dict[Path, contextlib.ExitStack] = {}  # of the folders that this process trains in
atexit.register(lambda: [lock.close() for lock in _locks.values()])  # of a fit that was interrupted


class TrainingState(keras.callbacks.Callback):
    """Saves a training after each epoch and goes on from there: `model.fit(..., initial_epoch=state.go_on(model))`.

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

    def go_on(self, model: keras.Model) -> int:
        """Bring a compiled model to where the training stood and return the number of epochs that are done.

        A finished training is not repeated: all epochs are done then, and the model has its best weights. From here on
        until fit ends, nobody else may train in this folder: raises RuntimeError if another process does, or if a new
        training can't be saved.
        """
        self._lock()
        model.optimizer.build(model.trainable_variables)
        state = read_state(self.run_dir)
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
        state = State(self.log, self.best, self.finished, variables, self.best_weights)
        return self._try(lambda: write_state(self.run_dir, state))

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
