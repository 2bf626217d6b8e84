"""state.npz: all that a training needs to go on, in one file that is replaced whole, and the one before it."""

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import write_whole

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what np.load and JSON raise


class State(NamedTuple):
    """A training after an epoch. log: loss and mIoU of each epoch. best: epoch, image_size and val_mIoU of the best
    network, None before the first epoch. finished: whether the training has come to its end. variables: all that
    training changes, none if finished. best_weights: of the best network.
    """

    log: list[dict[str, float]]
    best: dict | None
    finished: bool
    variables: Sequence[np.ndarray]
    best_weights: list[np.ndarray]


def write_state(run_dir: Path, state: State) -> None:
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


def read_state(run_dir: Path) -> State | None:
    """The newest state that can be read, None if there is none. One that can't be read is put aside, which is said."""
    return next(filter(None, (_read(run_dir / name) for name in ("state.npz", "state_before.npz"))), None)


def _read(path: Path) -> State | None:
    """Content of a state; None, and the file is put aside, if it can't be read to its last byte."""
    try:
        if not path.exists():
            return None
        with np.load(path) as arrays:  # a zip: each array has a checksum
            meta = json.loads(arrays["meta"].tobytes())
            variables = [arrays[f"variable{n}"] for n in range(meta["variables"])]
            best_weights = [arrays[f"best{n}"] for n in range(meta["best_weights"])]
            return State(meta["log"], meta["best"], meta["finished"], variables, best_weights)
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
