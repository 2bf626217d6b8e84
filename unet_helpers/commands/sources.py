"""What the user named to be predicted: pictures, folders of them and animations, read one picture after another."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from ..custom_data import READABLE_SUFFIXES, natural
from ..images import decode_image, find_bits

MAX_FRAMES, MAX_PIXELS = 10_000, 5_000_000_000  # of an animation: few bytes can hold a disk full of frames


class Source(NamedTuple):
    """What the user named: its pictures, read one after another. name: of the film, if it is one. frames yields (stem,
    path or (H, W, 3) uint8 pixels). duration: of a frame, in milliseconds.
    """

    name: str
    n_frames: int
    frames: Iterator[tuple[str, Path | np.ndarray]]
    is_film: bool
    duration: float = 100


def open_source(path: Path) -> Source:
    """Raises ValueError if there is nothing that can be opened."""
    if path.is_dir():
        files = _pictures_in(path)
        if not files:
            raise ValueError(f"{path}: found no picture in this folder; give one that holds pictures")
        others = [file for file in path.iterdir() if file.is_file() and file not in files and file.name[0] != "."]
        if others:
            names = ", ".join(file.name for file in others[:3]) + ", ..." * bool(others[3:])
            print(f"note: {path}: {len(others)} files are no pictures by their names, and passed over: {names}")
        frames = ((file.stem, file) for file in files)
        return Source(path.resolve().name, len(files), frames, is_film=len(files) > 1)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file or folder; check its name")
    n_frames, n_pixels, duration = _count_frames(path)
    if n_frames > MAX_FRAMES or n_pixels > MAX_PIXELS:
        raise ValueError(
            f"{path}: found an animation of {n_frames:,} frames, {n_pixels:,} pixels together, expected at most "
            f"{MAX_FRAMES:,} and {MAX_PIXELS:,}; cut it into parts"
        )
    if n_frames > 1:
        return Source(path.stem, n_frames, _read_frames(path, n_frames), True, duration)
    return Source(path.stem, 1, iter([(path.stem, path)]), is_film=False)


def _pictures_in(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in READABLE_SUFFIXES and file.name[0] != "."]
    return sorted(files, key=lambda file: natural(file.name))


def files_of(pictures: Sequence[Path]) -> list[Path]:
    """All files that the user named, those in folders, too."""
    files = []
    for path in pictures:
        with contextlib.suppress(OSError):  # it is said when it is opened
            files += _pictures_in(path) if path.is_dir() else [path]
    return files


def find_scales(pictures: Sequence[Path]) -> dict[Path, int]:
    """{file: bits in use} of all 16-bit pictures that the user named, the same for those of one folder, as in training.

    For a network that does not tell the bits of its training. A line says so. A dark one alone would be brighter than
    training saw it.
    """
    named: dict[Path, list[Path]] = defaultdict(list)
    for file in files_of(pictures):
        named[file.parent].append(file)
    found: dict[Path, int] = {}
    for folder, files in named.items():
        bits = find_bits(files)
        if bits:
            _say_scale(folder, bits)
        found |= bits
    return found


def _say_scale(folder: Path, bits: dict[Path, int]) -> None:
    taken = f"the highest 8 of the {max(bits.values())} bits in use"
    if len(bits) > 1:
        print(f"note: {folder}: {len(bits)} pictures of 16 bits: of all of them, {taken} are taken", flush=True)
    else:
        alone = "to scale it like others of its folder, name the folder"
        print(f"note: {next(iter(bits))}: a picture of 16 bits: {taken} are taken; {alone}", flush=True)


def _count_frames(path: Path) -> tuple[int, int, float]:
    """Frames of an animation, their pixels, and the milliseconds of the first; (1, 0, 100) for all else, damaged files,
    too."""
    try:
        with Image.open(path) as image:
            if image.format == "GIF":
                n_pixels = image.n_frames * image.width * image.height
                return image.n_frames, n_pixels * (image.n_frames > 1), image.info.get("duration") or 100
    except Exception:  # what is wrong with it is said when it is read
        pass
    return 1, 0, 100


def _read_frames(path: Path, n_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with Image.open(path) as image:
            for number, frame in enumerate(ImageSequence.Iterator(image), 1):
                yield f"{path.stem}_{number:0{len(str(n_frames))}}", np.asarray(frame.convert("RGB"))
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: its frames can't be read to the end ({error}); get it again") from None


def read_frame(frame: Path | np.ndarray, trained: int | None, bits: dict[Path, int]) -> np.ndarray:
    """(H, W, 3) uint8: a frame as it is; a file as `decode_image` has it, of 16 bits those of the training if they are
    known, else those of its folder.

    Raises ValueError, naming the file.
    """
    return frame if isinstance(frame, np.ndarray) else decode_image(frame, trained or bits.get(frame))
