"""predict: the network's masks of pictures, written as files that never replace anything of somebody else's."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from ..decoding import decode_image
from ..files import write_whole
from ..labels import LabelMap, class_pixels, colorize
from ..masks.layout import PICTURES
from ..masks.reading import examine_picture, read_picture
from ..masks.report import Unfit
from ..masks.splits import natural
from ..networks import Network
from ..prediction import predict_mask
from . import say_error
from .evaluate import load_checked
from .film import Film


class Source(NamedTuple):
    """What the user named: its pictures, read one after another. name: of the film, if it is one. frames yields (stem,
    path or (H, W, 3) uint8 pixels). duration: of a frame, in milliseconds.
    """

    name: str
    n_frames: int
    frames: Iterator[tuple[str, Path | np.ndarray]]
    is_film: bool
    duration: float = 100


def predict(
    network: Path, pictures: Sequence[Path], out: Path, image_size: tuple[int, int] | None, classes: Path | None,
    overwrite: bool,
) -> int:  # fmt: skip
    """Write NAME_ids.png, NAME_colors.png and NAME_overlay.png to out for each picture, and a film of several frames.

    What can't be read or written is named, and the others are done. Returns how many pictures and films failed.
    """
    trained = load_checked(network, classes, image_size)
    for source in pictures:
        if source.is_dir() and source.resolve() == out.resolve():
            raise ValueError(f"{out}: it is the folder of the pictures; give another --out, so that both stay apart")
    out.mkdir(parents=True, exist_ok=True)
    writer = Writer(out, overwrite, inputs={path.resolve() for path in pictures})
    n_failed = 0
    for path in pictures:
        try:
            n_failed += _predict_source(_open(path), trained, writer)
        except (ValueError, OSError) as error:
            say_error(str(error))
            n_failed += 1
    print(f"{out}: {writer.n_written} files written" + f", {n_failed} pictures or films failed" * bool(n_failed))
    return n_failed


class Writer:
    """Writes files to a folder, whole or not at all. None replaces one that was there before, unless overwrite; none
    ever replaces another of the same call, or an input: of two pictures with the same name, the second gets a number.
    """

    def __init__(self, folder: Path, overwrite: bool, inputs: set[Path]):
        self.folder, self.overwrite, self.inputs = folder, overwrite, inputs
        self.taken: set[str] = set()
        self.n_written = 0

    def reserve(self, stem: str, endings: Sequence[str]) -> list[Path]:
        """Paths stem + ending that nobody else has in this call. Raises ValueError for one that may not be replaced."""
        number, name = 1, stem
        while name.casefold() in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name.casefold())
        paths = [self.folder / f"{name}{ending}" for ending in endings]
        for path in paths:
            if path.resolve() in self.inputs:
                raise ValueError(f"{path}: it is one of the pictures themselves; give another --out")
            if path.exists() and not self.overwrite:
                raise ValueError(f"{path}: it is there already; give another --out, or --overwrite to replace it")
        return paths

    def write(self, path: Path, content: bytes) -> None:
        write_whole(path, content)
        self.n_written += 1


def _predict_source(source: Source, network: Network, writer: Writer) -> int:
    """Returns how many pictures failed, and films."""
    film, no_film, n_failed = Film(source.n_frames, source.duration), "", 0
    for number, (stem, frame) in enumerate(source.frames, 1):
        try:
            paths = writer.reserve(stem, ("_ids.png", "_colors.png", "_overlay.png"))
            picture = _read(frame)
            mask = predict_mask(network, picture)
            colors = colorize(mask, network.labels)
            for path, pixels in zip(paths, (mask, colors, picture // 2 + colors // 2), strict=True):
                writer.write(path, _png(pixels))
        except (ValueError, OSError) as error:
            say_error(str(error))
            n_failed += 1
            continue
        count = f"[{number}/{source.n_frames}] " if source.n_frames > 1 else ""
        print(f"{count}{paths[0].name.removesuffix('_ids.png')}: {_say_shares(mask, network.labels)}", flush=True)
        if source.is_film and not no_film:
            try:
                film.add(picture, colors)
            except ValueError as error:
                no_film = str(error)
    if no_film:
        print(f"{source.name}: no film, because the pictures differ in size ({no_film})")
    elif film.frames[1:]:
        return n_failed + _write_film(film, source.name, writer)
    return n_failed


def _write_film(film: Film, name: str, writer: Writer) -> int:
    try:
        (path,) = writer.reserve(f"{name}_film", [".gif"])
        content, what = film.make()
        writer.write(path, content)
    except (ValueError, OSError) as error:
        say_error(str(error))
        return 1
    print(f"{path.name}: {what}")
    return 0


def _open(path: Path) -> Source:
    """Raises ValueError if there is nothing that can be opened."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
        if not files:
            raise ValueError(f"{path}: found no picture in this folder; give one that holds pictures")
        files.sort(key=lambda file: natural(file.name))
        frames = ((file.stem, file) for file in files)
        return Source(path.resolve().name, len(files), frames, is_film=len(files) > 1)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file or folder; check its name")
    n_frames, duration = _count_frames(path)
    if n_frames > 1:
        return Source(path.stem, n_frames, _read_frames(path, n_frames), True, duration)
    return Source(path.stem, 1, iter([(path.stem, path)]), is_film=False)


def _count_frames(path: Path) -> tuple[int, float]:
    """Frames of an animation, and the milliseconds of its first; (1, 100) for all else, damaged files, too."""
    try:
        with Image.open(path) as image:
            if image.format == "GIF":
                return image.n_frames, image.info.get("duration") or 100
    except Exception:  # what is wrong with it is said when it is read
        pass
    return 1, 100


def _read_frames(path: Path, n_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with Image.open(path) as image:
            for number, frame in enumerate(ImageSequence.Iterator(image), 1):
                yield f"{path.stem}_{number:0{len(str(n_frames))}}", np.asarray(frame.convert("RGB"))
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: its frames can't be read to the end ({error}); get it again") from None


def _read(frame: Path | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: decoded as in training; upright, and of what training takes only when it is written anew, too.

    Raises ValueError, naming the file.
    """
    if isinstance(frame, np.ndarray):
        return frame
    try:
        found = examine_picture(frame)
        if found.changes:
            return np.asarray(read_picture(frame, max(8, found.highest.bit_length())))
    except Unfit as error:
        raise ValueError(f"{frame}: {error}" + f" (found: {error.found})" * bool(error.found)) from None
    try:
        return decode_image(str(frame)).numpy()
    except Exception as error:  # TensorFlow's errors have no base class of their own
        raise ValueError(f"{frame}: TensorFlow can't decode it; save it anew as an 8-bit RGB PNG") from error


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _say_shares(mask: np.ndarray, labels: LabelMap, most: int = 4) -> str:
    """ "road 41 %, sky 30 %": the largest shares of a mask."""
    shares = class_pixels(mask, labels) / mask.size
    order = [k for k in np.argsort(-shares) if shares[k] > 0]
    return ", ".join(f"{labels.names[k]} {shares[k]:.0%}" for k in order[:most]) + ", ..." * (len(order) > most)
