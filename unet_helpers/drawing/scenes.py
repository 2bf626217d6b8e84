"""Puts frames together, road scenes and their exact class masks, and writes them in the Kaggle layout, on all cores.

A drive is one street (street.py): solids on a ground plane, seen from a car that drives through it (raycast.py)."""

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
from . import raycast as cast
from .raycast import CLASSES, GROUND, PAINT, SKY, VEHICLE, WHITE_NOISE
from .street import DRIVES, Street, get_street

VERSION = 2  # raise it when the drawing changes
SMALL = [CLASSES.index(name) for name in ("other", "pedestrian", "sign")]  # from 45 m on a pixel or two: left out


def _develop(street: Street, image, above, rng):
    """From light (3, H, W) to (H, W, 3) uint8: own bonnet, rain, exposure, tone curve, lens, noise."""
    (rows, columns), reach = above.shape, above.shape[1] // 8
    window = np.ones(2 * reach + 1) / (2 * reach + 1)
    rows_seen = (np.pad(channel, reach, "edge") for channel in image.mean(1))
    reflection = np.stack([np.convolve(row, window, "valid") for row in rows_seen])  # of the scene in the bonnet
    gleam = .02 + .28 * np.exp(above * 16) * (.7 + .3 * rng.random())
    image = np.where(above > 0, image, reflection[:, None] * gleam)
    if street.weather == "R":
        x, y = np.arange(columns) * 320 / columns, np.arange(rows)[:, None] * 240 / rows
        image += .05 * (cast.noise(x + .1 * y, y / 14 + rng.integers(500) + 0 * x, 1, WHITE_NOISE) > .985)
    image *= rng.normal(1, .025, (3, 1, 1)) * rng.uniform(.17, .36) / image.mean() ** .75
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    image = np.sqrt(1 - np.exp(-1.9 * image * (1 - .13 * (x * x + y * y))))  # tone curve
    blurred = image[:, 1:-1, 1:-1] * .5  # the lens: half of a pixel's light is its neighbours'
    for y, x in ((0, 1), (1, 0), (1, 2), (2, 1)):
        blurred += .125 * image[:, y:rows - 2 + y, x:columns - 2 + x]
    image[:, 1:-1, 1:-1] = blurred
    image += rng.normal(0, rng.uniform(.006, .018), image.shape)
    return (np.clip(image, 0, 1) * 255).astype("u1").transpose(1, 2, 0).copy()


def _colours(street: Street, solids, moving, eye, rays, world, depth, index, focal):
    """Class (P,) uint8 and colour (3, P) of all pixels; index: of the solid seen, SKY or GROUND."""
    colour, normal = np.zeros((2, 3, len(index)), "f4")
    label, (gloss, glow) = np.zeros(len(index), "u1"), np.zeros((2, len(index)), "f4")
    k, normal[1] = np.flatnonzero(index == GROUND), 1
    label[k], colour[:, k] = cast.ground_at(street, world[0, k], world[2, k], depth[k], depth[k] / focal)
    for car in moving[moving["look"] == PAINT]:  # too late for the shadow maps
        geometry = car["geometry"] - np.pad(street.to_sun * (.3, 0, .3), (0, 7))
        (x, _, z), _ = cast.to_local(geometry, world[:, k], eye)
        colour[:, k] *= 1 - .8 * np.clip((1.15 - np.maximum(abs(x), abs(z))) * 5, 0, 1)
    k = np.flatnonzero(index >= 0)
    hit = solids[index[k]]
    geometry = np.ascontiguousarray(hit["geometry"].T)
    start, direction = cast.to_local(geometry, eye, rays[:, k])
    point = np.stack([a + depth[k] * b for a, b in zip(start, direction, strict=True)])
    normal[:, k], face = cast.normal_at(point, hit["shape"], geometry)
    label[k] = hit["label"]
    colour[:, k], gloss[k], glow[k] = cast.surface_at(street, hit, point, normal[:, k], face, depth[k] / focal)
    colour = cast.light_up(street, colour, normal, gloss, glow, world, depth)
    k = np.flatnonzero(index == SKY)
    label[k], colour[:, k] = cast.sky_at(street, rays[:, k], eye[2] * .008)
    return label, colour


def render_frame(
    drive: str, frame: int, *, seed: int = 0, size: tuple[int, int] = (240, 320), n_frames: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one frame of a drive that is `n_frames` long: image, (H, W, 3) uint8 RGB, and mask, (H, W) uint8 ids 0..12.
    drive: one of DRIVES; frame: 0..n_frames - 1; seed: from 0 on; size: (height, width), 24 pixels or more each."""
    street, rows, columns = get_street(drive, seed, n_frames), *size
    rng = np.random.default_rng([seed, DRIVES.index(drive), frame])
    moving = street.traffic(frame, rng)
    solids = np.concatenate([street.solids, moving])
    z, focal, level = frame * street.step, street.focal * columns, (street.level + rng.normal(0, .006)) * rows
    x = street.bend(z) + (street.lanes - .5) * street.lane + rng.normal(0, .25)
    eye, yaw = np.float32([x, street.eye, z])[:, None], street.heading(z) + rng.normal(0, .02)
    sin, cos = np.sin(yaw), np.cos(yaw)

    y, x = ((np.arange(n) + .5) / n for n in size)
    above = (.83 + .04 * abs(2 * x - 1) ** 2.5) - y[:, None]  # the own car's bonnet, in image heights; < 0: on it
    n_rows = int((above > 0).any(1).sum())  # below, there is only bonnet
    v, u = np.indices((n_rows, columns), "f4").reshape(2, -1) + np.float32(.5)
    u = (u - columns / 2) / focal
    rays = np.stack([u * cos + sin, (level - v) / focal, cos - u * sin]).astype("f4")

    x, y, z = cast.corners_of(solids) - eye[:, None]
    deep, wide = x * sin + z * cos, x * cos - z * sin
    far = np.where(np.isin(solids["label"], SMALL), 45, 95)
    seen = (deep.max(0) > .5) & (deep.min(0) < np.minimum(far, 3.5 * street.sight))
    solids, wide, y, deep = solids[seen], wide[:, seen], y[:, seen], np.maximum(deep[:, seen], .3)
    thin = np.clip(.5 * deep.min(0) / focal, 0, .1)[:, None]  # far posts still fill a pixel
    solids["geometry"][:, 3:6] = np.maximum(solids["geometry"][:, 3:6], thin)
    corners = level - focal * y / deep, columns / 2 + focal * wide / deep
    depth, index = cast.trace(solids, corners, (n_rows, columns), eye, rays, 1 / focal)
    ground = -street.eye / np.minimum(rays[1], -1e-4)
    index = np.where((ground < depth) & (ground < 400), GROUND, index)
    depth = np.where(index == GROUND, ground, depth).astype("f4")
    world = eye + rays * np.minimum(depth, 500)
    label, colour = _colours(street, solids, moving, eye, rays, world, depth, index, focal)

    image, mask = np.zeros((3, rows, columns), "f4"), np.full((rows, columns), VEHICLE, "u1")
    image[:, :n_rows], mask[:n_rows] = colour.reshape(3, n_rows, -1), label.reshape(n_rows, -1)
    if street.weather == "R":
        cast.wet_road(image[:, :n_rows], (index == GROUND).reshape(n_rows, -1), world, level)
    mask[above <= 0] = VEHICLE
    return _develop(street, image, above, rng), mask


def draw_scenes(
    folder: Path, *, seed: int = 0, size: tuple[int, int] = (240, 320), n_frames: int = 20,
    drives: Iterable[str] = DRIVES, processes: int | None = None, progress: Callable[[str], object] = print,
) -> Path:  # fmt: skip
    """Draw `n_frames` frames of each drive below `folder`, whole or not at all, unless they are there; return it.
    Files as on Kaggle: data{A..E}/data{A..E}/Camera{RGB,Seg}/NAME.png. seed, size, n_frames: as for `render_frame`;
    drives: some of DRIVES; processes: None = one per core. progress(line) is called before the first frame, about each
    tenth of them, and before waiting for another process that draws to `folder`. Raises ValueError if seed is
    negative, and, naming `folder`, if it can't be used or is there without all of the frames."""
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
    n_workers = min(processes or os.cpu_count() or 1, len(parts), 61)  # Windows can wait for no more
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
