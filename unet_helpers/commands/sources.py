"""What predict is given: images, folders of them and animations, read one image after another."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from ..custom_data import READABLE_SUFFIXES, natural
from ..images import find_bits

MAX_FRAMES, MAX_PIXELS = 10_000, 5_000_000_000  # of an animation: few bytes can hold a disk full of frames


class Source(NamedTuple):
    """One argument of predict."""

    name: str  # of the animation that is made of its frames
    files: list[Path]
    n_frames: int
    frames: Iterator[tuple[str, Path | np.ndarray]]  # (stem, image file or (H, W, 3) uint8 pixels), read one by one
    duration: float = 100  # of a frame, in milliseconds


def open_source(path: Path) -> Source:
    """Raises ValueError if there is nothing that can be opened."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder; check its name")
    if not path.is_dir():
        return _open_animation(path) or Source(path.stem, [path], 1, iter([(path.stem, path)]))
    shown = sorted((file for file in path.iterdir() if file.name[0] != "."), key=lambda file: natural(file.name))
    files = [file for file in shown if file.suffix.lower() in READABLE_SUFFIXES]
    if not files:
        raise ValueError(f"{path}: found no image in this folder; give one that holds images")
    others = [file.name for file in shown if file.is_file() and file not in files]
    if others:
        names = ", ".join(others[:3]) + ", ..." * bool(others[3:])
        print(f"note: {path}: {len(others)} files have no suffix of an image, and are left out: {names}")
    return Source(path.resolve().name, files, len(files), ((file.stem, file) for file in files))


def _open_animation(path: Path) -> Source | None:
    """A GIF of several frames; None for all else, also for a damaged file: what is wrong is said when it is read."""
    if not path.is_file():
        return None  # to open a pipe would wait for ever
    try:
        with Image.open(path) as image:
            n_frames = image.n_frames if image.format == "GIF" else 1
            n_pixels, duration = n_frames * image.width * image.height, image.info.get("duration") or 100
    except Exception:  # Pillow raises many kinds for damaged files
        return None
    if n_frames == 1:
        return None
    if n_frames > MAX_FRAMES or n_pixels > MAX_PIXELS:
        raise ValueError(
            f"{path}: found an animation of {n_frames:,} frames, {n_pixels:,} pixels together, expected at most "
            f"{MAX_FRAMES:,} and {MAX_PIXELS:,}; cut it into parts"
        )
    return Source(path.stem, [path], n_frames, _read_frames(path, n_frames), duration)


def _read_frames(path: Path, n_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with Image.open(path) as image:
            for number, frame in enumerate(ImageSequence.Iterator(image), 1):
                yield f"{path.stem}_{number:0{len(str(n_frames))}}", np.asarray(frame.convert("RGB"))
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: its frames can't be read to the end ({error}); get it again") from None


def find_scales(files: Sequence[Path]) -> dict[Path, int]:
    """{file: bits in use} of the 16-bit images among the files, the same for those of one folder, as in training.

    For a network that does not know the bits of its training. A note says so: a dark image that is given alone becomes
    brighter than it was in training.
    """
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(file)
    found: dict[Path, int] = {}
    for folder, members in by_folder.items():
        bits = find_bits(members)
        if bits:
            alone = "; to scale it like others of its folder, give the folder" * (len(bits) == 1)
            used = f"the highest 8 of the {max(bits.values())} bits in use are taken"
            print(f"note: {folder}: images of 16 bits: {len(bits)}, of which {used}{alone}", flush=True)
        found |= bits
    return found
