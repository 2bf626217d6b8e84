"""predict: the network's masks of images and folders, in files that never replace anybody's own."""

import contextlib
import io
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..custom_data import READABLE_SUFFIXES, natural
from ..images import decode_image, find_bits, has_more_frames
from ..labels import LabelMap, class_pixels, colorize
from ..naming import counted
from ..networks import Network
from ..plots import draw_legend
from ..prediction import predict_mask
from ..storage import write_whole
from . import say_error
from .evaluate import load_checked


def predict(
    network: Path, images: Sequence[Path], out: Path, image_size: tuple[int, int] | None, classes: Path | None,
    overwrite: bool, confidence: bool,
) -> int:  # fmt: skip
    """Write NAME_ids.png, NAME_colors.png and NAME_overlay.png to out for each image, and once legend.png and
    classes.txt, which say what ids and colours mean. Of an animation, only the first frame is predicted.
    confidence: NAME_confidence.png, too: 0 to 255 for a softmax of 0 to 1 of the predicted class.
    What can't be read or written is named, and the others are done. Returns how many images and folders failed."""
    trained = load_checked(network, classes, image_size)
    for path in images:
        if path.is_dir() and path.resolve() == out.resolve():
            raise ValueError(f"{out}: it is the folder of the images; give another --out, so that both stay apart")
    out.mkdir(parents=True, exist_ok=True)
    writer, files = Writer(out, overwrite), []
    for path in images:
        with writer.counting_failures():
            files += _find_files(path)
    writer.inputs = set(map(os.path.realpath, files))
    bits = {} if trained.bits else _find_bits(files)
    endings = ("_ids.png", "_colors.png", "_overlay.png", *["_confidence.png"] * confidence)
    started = time.perf_counter()
    for number, path in enumerate(files, 1):
        with writer.counting_failures():
            said = _predict_image(path, trained, writer, trained.bits or bits.get(path), endings)
            count = f"[{number}/{len(files)}] " * (len(files) > 1)
            print(f"{count}{said}{time_left(started, number, len(files))}", flush=True)
    if writer.n_written:
        _write_legend(trained.labels, writer)
    if writer.kept:
        more = f" and those of {len(writer.kept) - 1} more" * (len(writer.kept) > 1)
        todo = "give another --out, or --overwrite to replace such files"
        say_error(f"{out / writer.kept[0]}{more}: there already; {todo}")
    failed = f"; images or folders that failed: {writer.n_failed}" * bool(writer.n_failed)
    print(f"{out}: {counted(writer.n_written, 'file')} written{failed}")
    return writer.n_failed


def _find_files(path: Path) -> list[Path]:
    """The image, or those of a folder in natural order. Raises ValueError if there is none."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder; check its name")
    if not path.is_dir():
        return [path]
    shown = sorted((file for file in path.iterdir() if file.name[0] != "."), key=lambda file: natural(file.name))
    files = [file for file in shown if file.suffix.lower() in READABLE_SUFFIXES]
    if not files:
        raise ValueError(f"{path}: found no image in this folder; give one that holds images")
    others = [file.name for file in shown if file.is_file() and file not in files]
    if others:
        names = ", ".join(others[:3]) + ", ..." * bool(others[3:])
        print(f"note: {path}: left out {counted(len(others), 'file')} without the suffix of an image: {names}")
    return files


def _find_bits(files: Sequence[Path]) -> dict[Path, int]:
    """{file: bits in use} of the 16-bit images, the same for those of one folder, as in training; a note says so. For
    a network that does not know the bits of its training: with these, a dark image that is given alone is brighter."""
    found: dict[Path, int] = {}
    for folder in sorted({file.parent for file in files}):
        if bits := find_bits([file for file in files if file.parent == folder]):
            alone = "; to scale it like others of its folder, give the folder" * (len(bits) == 1)
            used = f"the highest 8 of the {max(bits.values())} bits in use are taken"
            print(f"note: {folder}: images of 16 bits: {len(bits)}, of which {used}{alone}", flush=True)
        found |= bits
    return found


class Writer:
    """Writes files to a folder, whole or not at all. None replaces one that was there before, unless overwrite, and
    none ever an input or another one of the same call."""

    def __init__(self, folder: Path, overwrite: bool):
        self.folder, self.overwrite = folder, overwrite
        self.inputs: set[str] = set()  # real paths
        self.taken: set[str] = set()  # names of this call
        self.kept: list[str] = []  # names of files that were there already, one for each image
        self.n_written = self.n_failed = 0

    @contextlib.contextmanager
    def counting_failures(self) -> Iterator[None]:
        """What can't be read or written in the block is reported and counted, and the rest continues."""
        try:
            yield
        except FileExistsError as error:
            self.kept.append(str(error))
            self.n_failed += 1
        except (ValueError, OSError) as error:
            say_error(str(error))
            self.n_failed += 1

    def reserve(self, stem: str, endings: Sequence[str]) -> list[Path]:
        """New paths stem + ending, with a number in between if this call has one of the name; raises as `check`."""
        numbered = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in numbered if name.casefold() not in self.taken)  # on some disks P.png is p.png
        self.taken.add(name.casefold())
        return [self.check(f"{name}{ending}") for ending in endings]

    def check(self, name: str) -> Path:
        """The path of a file in the folder. Raises FileExistsError if it is there, ValueError if it is an input."""
        path = self.folder / name
        if os.path.realpath(path) in self.inputs:
            raise ValueError(f"{path}: it is one of the images themselves; give another --out")
        if path.exists() and not self.overwrite:
            raise FileExistsError(name)
        return path

    def write(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, content)
        except OSError as error:  # a full disk does not say which file
            reason = error.strerror or error
            raise ValueError(f"{path}: it can't be written ({reason}); make room, or give another --out") from None
        self.n_written += 1


def time_left(started: float, n_done: int, n_items: int) -> str:
    """How long the rest takes at the speed so far: ", 40 s left"; "" for less than 5 seconds."""
    seconds = (time.perf_counter() - started) * (n_items - n_done) / n_done
    return "" if seconds < 5 else f", {seconds:.0f} s left" if seconds < 90 else f", {seconds / 60:.0f} min left"


def _predict_image(path: Path, network: Network, writer: Writer, bits: int | None, endings: Sequence[str]) -> str:
    """Write the files of an image; returns the name that they have, and what is in the mask."""
    paths = writer.reserve(path.stem, endings)
    image = decode_image(path, bits)
    with Image.open(path) as opened:
        if has_more_frames(opened):
            print(f"note: {path}: it holds more than one image, and only the first is used; save others as files")
    predicted = predict_mask(network, image, confidence=len(paths) > 3)
    mask, *certainty = predicted if len(paths) > 3 else (predicted,)
    colors = colorize(mask, network.labels)
    maps = [np.round(255 * each.clip(0, 1)).astype(np.uint8) for each in certainty]
    for file, pixels in zip(paths, (mask, colors, image // 2 + colors // 2, *maps), strict=True):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        writer.write(file, content.getvalue())
    return f"{paths[0].name.removesuffix(endings[0])}: {_say_shares(mask, network.labels)}"


def _write_legend(labels: LabelMap, writer: Writer) -> None:
    """legend.png and classes.txt, "0: road 128,64,128", as `custom_data` reads it; the same ones are left alone."""
    colors = zip(labels.names, labels.colors, strict=True)
    lines = "".join(f"{k}: {name} {','.join(map(str, color))}\n" for k, (name, color) in enumerate(colors))
    there = writer.folder / "classes.txt"
    if there.is_file() and there.read_bytes() == lines.encode():
        return
    with writer.counting_failures():
        writer.write(writer.check("classes.txt"), lines.encode())
        writer.write(writer.check("legend.png"), draw_legend(labels).as_png())


def _say_shares(mask: np.ndarray, labels: LabelMap, most: int = 4) -> str:
    """ "road 41 %, sky 30 %": the largest shares of a mask."""
    shares = class_pixels(mask, labels) / mask.size
    order = [k for k in np.argsort(-shares) if shares[k] > 0]
    return ", ".join(f"{labels.names[k]} {shares[k]:.0%}" for k in order[:most]) + ", ..." * (len(order) > most)
