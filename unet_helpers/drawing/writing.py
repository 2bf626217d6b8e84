"""Writes the drawn scenes in the Kaggle layout, on all cores; the folder appears whole or not at all."""

import multiprocessing
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from PIL import Image

from ..naming import named
from ..notebook import interruptible
from ..storage import hold_lock, remove_partial_folders, write_folder
from .scenes import render_frame
from .street import DRIVES


def draw_scenes(
    folder: Path, *, seed: int = 0, size: tuple[int, int] = (240, 320), n_frames: int = 20,
    drives: Iterable[str] = DRIVES, processes: int | None = None, progress: Callable[[str], object] = print,
) -> Path:  # fmt: skip
    """Draw `n_frames` frames of each drive below `folder`, whole or not at all, unless they are there; return it.

    Files as on Kaggle: data{A..E}/data{A..E}/Camera{RGB,Seg}/NAME.png. seed, size, n_frames: as for `render_frame`;
    drives: some of DRIVES; processes: None = one per core. progress(line) is called before the first frame, about each
    tenth of them, and before waiting for another process that draws to `folder`. Raises ValueError if seed is
    negative, and, naming `folder`, if it can't be used or is there without all of the frames.
    """
    folder, drives = Path(folder), tuple(drives)
    if seed < 0:
        raise ValueError(f"seed: found {seed}, expected 0 or more")
    try:
        if not _is_drawn(folder, drives, n_frames):
            busy = f"another process is drawing to {folder}: waiting for it"
            with hold_lock(folder, lambda: progress(busy)) as alone:
                if alone:
                    remove_partial_folders(folder)
                if not _is_drawn(folder, drives, n_frames):
                    _draw(folder, drives, processes, progress, seed=seed, size=size, n_frames=n_frames)
    except OSError as error:
        raise ValueError(f"folder: {folder} can't be drawn ({error.strerror or error}); make it writable, make room, "
                         f"or set {named('DATA_DIR')} to a folder on another disk, and run again") from None
    return folder


def _is_drawn(folder: Path, drives: tuple[str, ...], n_frames: int) -> bool:
    """Whether all frames are there. Raises ValueError if the folder is, but not all of them."""
    files = [path for drive in drives for frame in range(n_frames) for path in _files_of(folder, drive, frame)]
    missing = [path for path in files if not path.is_file()]
    if missing and folder.exists():
        raise ValueError(f"folder: {folder} exists already, but lacks {len(missing)} of its {len(files)} files, "
                         f"such as {missing[0].name}; move it away or delete it, and run again")
    return not missing


def _draw(folder: Path, drives: tuple[str, ...], processes: int | None, progress, **options) -> None:
    n_frames, total, done = options["n_frames"], len(drives) * options["n_frames"], 0
    parts = [(drive, range(n_frames)[first:first + 10]) for drive in drives for first in range(0, n_frames, 10)]
    n_workers = min(processes or os.cpu_count() or 1, len(parts))
    with interruptible(lambda: f"nothing is kept; {named('run the cell again')}"), write_folder(folder) as partial:
        progress(f"drawing {total} road scenes, once")
        begun = time.perf_counter()
        # spawn, not fork: a fork of a process in which TensorFlow runs may hang
        spawn = multiprocessing.get_context("spawn")
        pool = ThreadPoolExecutor(1) if n_workers == 1 else ProcessPoolExecutor(n_workers, spawn, _end_with_parent)
        try:
            for drawn in as_completed(_submit(pool, [(partial, *part, options) for part in parts])):
                tenths, done = done * 10 // total, done + drawn.result()
                if done * 10 // total > tenths:
                    left = (time.perf_counter() - begun) * (total - done) / done
                    progress(f"drawing {total} road scenes: {done} done, {left:.0f} s left")
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: Executor, parts: list[tuple]) -> list[Future]:
    """Start the workers. Each would run the main module once more: a script without a guard would draw there, too."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        return [pool.submit(_draw_part, *part) for part in parts]
    finally:
        sys.modules["__main__"] = main


def _end_with_parent() -> None:
    """A killed parent can't end its workers: each watches it, or it would draw on and then wait forever."""
    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw_part(folder: Path, drive: str, frames: range, options: dict) -> int:
    for frame in frames:
        image, mask = render_frame(drive, frame, **options)
        red = np.stack([mask, 0 * mask, 0 * mask], axis=2)  # the class id is in the red channel
        for path, pixels in zip(_files_of(folder, drive, frame), (image, red), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=2)  # quick to write
    return len(frames)


def _files_of(folder: Path, drive: str, frame: int) -> list[Path]:
    """The files of a frame, image and mask, named as in the real data set: '02_00_000.png' or, from 1, 'F61-1.png'."""
    name = f"{drive}-{frame + 1}.png" if drive.startswith("F") else f"{drive}_{frame:03d}.png"
    letter = "ABCDE"[int(name[-5]) // 2]  # of the last digit of the frame's number
    return [folder / f"data{letter}" / f"data{letter}" / camera / name for camera in ("CameraRGB", "CameraSeg")]
