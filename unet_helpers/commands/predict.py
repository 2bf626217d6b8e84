"""predict: the network's masks of pictures, written as files that never replace anything of somebody else's."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..labels import LabelMap, class_pixels, colorize
from ..networks import Network
from ..prediction import predict_mask
from ..storage import write_whole
from . import say_error
from .evaluate import load_checked
from .film import Film
from .sources import Source, files_of, find_scales, open_source, read_frame


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
    writer = Writer(out, overwrite, inputs={os.path.realpath(file) for file in files_of(pictures)})
    bits = {} if trained.bits else find_scales(pictures)
    n_failed = 0
    for path in pictures:
        try:
            n_failed += _predict_source(open_source(path), trained, writer, bits)
        except (ValueError, OSError) as error:
            say_error(str(error))
            n_failed += 1
    print(f"{out}: {writer.n_written} files written" + f"; pictures or films that failed: {n_failed}" * bool(n_failed))
    return n_failed


class Writer:
    """Writes files to a folder, whole or not at all. None replaces one that was there before, unless overwrite; none
    ever replaces another of the same call, or an input: of two pictures with the same name, the second gets a number.
    """

    def __init__(self, folder: Path, overwrite: bool, inputs: set[str]):
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
            if os.path.realpath(path) in self.inputs:
                raise ValueError(f"{path}: it is one of the pictures themselves; give another --out")
            if path.exists() and not self.overwrite:
                raise ValueError(f"{path}: it is there already; give another --out, or --overwrite to replace it")
        return paths

    def write(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, content)
        except OSError as error:  # a full disk does not say which file
            reason = error.strerror or error
            raise ValueError(f"{path}: it can't be written ({reason}); make room, or give another --out") from None
        self.n_written += 1


def _predict_source(source: Source, network: Network, writer: Writer, bits: dict[Path, int]) -> int:
    """Returns how many pictures failed, and films. bits: of 16-bit pictures, from `find_scales`."""
    film, no_film, n_failed = Film(source.n_frames, source.duration), "", 0
    for number, (stem, frame) in enumerate(source.frames, 1):
        try:
            paths = writer.reserve(stem, ("_ids.png", "_colors.png", "_overlay.png"))
            picture = read_frame(frame, network.bits, bits)
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


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _say_shares(mask: np.ndarray, labels: LabelMap, most: int = 4) -> str:
    """ "road 41 %, sky 30 %": the largest shares of a mask."""
    shares = class_pixels(mask, labels) / mask.size
    order = [k for k in np.argsort(-shares) if shares[k] > 0]
    return ", ".join(f"{labels.names[k]} {shares[k]:.0%}" for k in order[:most]) + ", ..." * (len(order) > most)
