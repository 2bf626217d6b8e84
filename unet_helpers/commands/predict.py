"""predict: the network's masks of images, folders and animations, in files that never replace anybody's own."""

import contextlib
import io
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from ..custom_data import READABLE_SUFFIXES, natural
from ..images import decode_image, find_bits
from ..labels import LabelMap, class_pixels, colorize
from ..naming import counted
from ..networks import Network
from ..plots import draw_legend
from ..prediction import predict_mask
from ..storage import write_whole
from . import say_error
from .evaluate import load_checked

MOST_FRAMES, MOST_PIXELS = 10_000, 5_000_000_000  # of an animation that is read: few bytes can fill a disk with masks
# of the animation that is written; MAX_SIDE: of an image, in pixels; GAP: between image and prediction
MAX_FRAMES, MAX_BYTES, MAX_SIDE, GAP = 100, 3_000_000, 400, 4
LONGEST = 200  # milliseconds that a frame is shown: where frames are left out, the animation is quicker, not jerky


def predict(
    network: Path, images: Sequence[Path], out: Path, image_size: tuple[int, int] | None, classes: Path | None,
    overwrite: bool, confidence: bool,
) -> int:  # fmt: skip
    """Write NAME_ids.png, NAME_colors.png and NAME_overlay.png to out for each image, an animation of the frames of a
    sequence, and once legend.png and classes.txt, which say what ids and colours mean.
    confidence: NAME_confidence.png, too: 0 to 255 for a softmax of 0 to 1 of the predicted class.
    What can't be read or written is named, and the others are done. Returns how many images and animations failed."""
    trained = load_checked(network, classes, image_size)
    for path in images:
        if path.is_dir() and path.resolve() == out.resolve():
            raise ValueError(f"{out}: it is the folder of the images; give another --out, so that both stay apart")
    out.mkdir(parents=True, exist_ok=True)
    writer, sources = Writer(out, overwrite), []
    for path in images:
        with writer.counting_failures():
            sources.append(_open_source(path))
    files = [file for source in sources for file in source.files]
    writer.inputs = set(map(os.path.realpath, files))
    bits = {} if trained.bits else _find_bits(files)
    endings = ("_ids.png", "_colors.png", "_overlay.png", *["_confidence.png"] * confidence)
    left = time_left(sum(source.n_frames for source in sources))
    for source in sources:
        with writer.counting_failures():
            _predict_source(source, trained, writer, bits, endings, left)
    writer.say_kept()
    if writer.n_written:
        _write_legend(trained.labels, writer)
    failed = f"; images or animations that failed: {writer.n_failed}" * bool(writer.n_failed)
    print(f"{out}: {counted(writer.n_written, 'file')} written{failed}")
    return writer.n_failed


class Source(NamedTuple):  # one argument of predict
    name: str  # of the animation that is made of its frames
    files: list[Path]
    n_frames: int
    frames: Iterator[tuple[str, Path | np.ndarray]]  # (stem, image file or (H, W, 3) uint8 pixels), read one by one
    duration: float = 100  # of a frame, in milliseconds
    is_sequence: bool = True  # whether its images follow each other, as the frames of an animation do


def _open_source(path: Path) -> Source:
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
        print(f"note: {path}: left out {counted(len(others), 'file')} without the suffix of an image: {names}")
    frames = ((file.stem, file) for file in files)
    is_sequence = are_frames([file.stem for file in files])
    return Source(path.resolve().name, files, len(files), frames, is_sequence=is_sequence)


def are_frames(stems: Sequence[str]) -> bool:
    """Whether names, in natural order, differ in one number alone, which rises by equal steps: f8, f9, f10."""
    varying = [column for column in zip(*map(natural, stems), strict=False) if len(set(column)) > 1]
    if len({len(natural(stem)) for stem in stems}) > 1 or len(varying) != 1 or any(text for _, text in varying[0]):
        return False
    return len(set(np.diff([number for number, _ in varying[0]]).tolist())) == 1


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
    if n_frames > MOST_FRAMES or n_pixels > MOST_PIXELS:
        raise ValueError(
            f"{path}: found an animation of {n_frames:,} frames, {n_pixels:,} pixels together, expected at most "
            f"{MOST_FRAMES:,} and {MOST_PIXELS:,}; cut it into parts"
        )
    return Source(path.stem, [path], n_frames, _read_frames(path, n_frames), duration)


def _read_frames(path: Path, n_frames: int) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with Image.open(path) as image:
            for number, frame in enumerate(ImageSequence.Iterator(image), 1):
                yield f"{path.stem}_{number:0{len(str(n_frames))}}", np.asarray(frame.convert("RGB"))
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: its frames can't be read to the end ({error}); get it again") from None


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
        self.kept: list[str] = []  # names of files that were there already, one for each image or animation
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

    def say_kept(self) -> None:
        """One line for all files that were there already and are not replaced."""
        if self.kept:
            more = f" and those of {len(self.kept) - 1} more" * (len(self.kept) > 1)
            todo = "give another --out, or --overwrite to replace such files"
            say_error(f"{self.folder / self.kept[0]}{more}: there already; {todo}")
            self.kept.clear()

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


def time_left(n_items: int) -> Iterator[str]:
    """After each item, how long the rest takes at the speed so far: ", 40 s left"; "" for less than 5 seconds."""
    started = time.perf_counter()

    def say(n_left: int) -> str:
        seconds = (time.perf_counter() - started) * n_left / (n_items - n_left)
        return "" if seconds < 5 else f", {seconds:.0f} s left" if seconds < 90 else f", {seconds / 60:.0f} min left"

    return map(say, range(n_items - 1, -1, -1))


def _predict_source(
    source: Source, network: Network, writer: Writer, bits: dict[Path, int], endings: Sequence[str], left: Iterator[str]
) -> None:
    animation, differs = Animation(source.n_frames, source.duration), ""
    for number, (stem, frame) in enumerate(source.frames, 1):
        with writer.counting_failures():
            paths = writer.reserve(stem, endings)
            image = decode_image(frame, network.bits or bits.get(frame)) if isinstance(frame, Path) else frame
            predicted = predict_mask(network, image, confidence=len(paths) > 3)
            mask, *certainty = predicted if len(paths) > 3 else (predicted,)
            colors = colorize(mask, network.labels)
            maps = [np.round(255 * each.clip(0, 1)).astype(np.uint8) for each in certainty]
            for path, pixels in zip(paths, (mask, colors, image // 2 + colors // 2, *maps), strict=True):
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                writer.write(path, file.getvalue())
            count = f"[{number}/{source.n_frames}] " if source.n_frames > 1 else ""
            name, shares = paths[0].name.removesuffix(endings[0]), _say_shares(mask, network.labels)
            print(f"{count}{name}: {shares}{next(left)}", flush=True)
            differs = differs or animation.add(image, colors)
    if source.n_frames > 1 and not source.is_sequence:
        differs = "the names are not numbered frames of one sequence"
    if differs:
        print(f"{source.name}: no animation: {differs}")
    elif len(animation.frames) > 1:
        (path,) = writer.reserve(f"{source.name}_animation", [".gif"])
        content, what = animation.make()
        writer.write(path, content)
        print(f"{path.name}: {what}")


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
    writer.say_kept()


def _say_shares(mask: np.ndarray, labels: LabelMap, most: int = 4) -> str:
    """ "road 41 %, sky 30 %": the largest shares of a mask."""
    shares = class_pixels(mask, labels) / mask.size
    order = [k for k in np.argsort(-shares) if shares[k] > 0]
    return ", ".join(f"{labels.names[k]} {shares[k]:.0%}" for k in order[:most]) + ", ..." * (len(order) > most)


class Animation:
    """A short animated GIF that stays small, each image beside its prediction: `add` n_frames, then `make`. Of more
    than MAX_FRAMES, evenly spaced ones are kept, so that memory stays small. duration: milliseconds of a frame."""

    def __init__(self, n_frames: int, duration: float = 100):
        self.n_frames, self.duration, self.n_added = n_frames, duration, 0
        self.frames: list[Image.Image] = []
        self.chosen = set(np.linspace(0, n_frames - 1, min(n_frames, MAX_FRAMES)).round().astype(int).tolist())
        self.size: tuple[int, int] | None = None  # (height, width) of the first image

    def add(self, image: np.ndarray, colors: np.ndarray) -> str:
        """image, colors: (H, W, 3) uint8. Returns "", or what was found where they are not as large as those before."""
        self.size = self.size or image.shape[:2]
        if image.shape[:2] != self.size:
            return f"the images differ in size ({'{}x{}'.format(*image.shape[:2])} among {'{}x{}'.format(*self.size)})"
        if self.n_added in self.chosen:
            scale = min(1, MAX_SIDE / max(self.size))
            left, right = (_resize(Image.fromarray(panel), scale) for panel in (image, colors))
            frame = Image.new("RGB", (2 * left.width + GAP, left.height), "white")
            frame.paste(left, (0, 0))
            frame.paste(right, (left.width + GAP, 0))
            self.frames.append(frame)
        self.n_added += 1
        return ""

    def make(self) -> tuple[bytes, str]:
        """The GIF, at most MAX_BYTES, and what it holds: "100 of 120 frames at 192x516, 2.9 MB"."""
        n_kept, scale = len(self.frames), 1.0
        duration = max(20, round(min(LONGEST, self.duration * self.n_added / n_kept)))
        while True:
            # without dithering, whose noise would double the size
            resized = (_resize(frame, scale).quantize(256, dither=Image.Dither.NONE) for frame in self.frames)
            (first, *others), file = resized, io.BytesIO()
            first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
            n_bytes, size = len(file.getvalue()), f"{first.height}x{first.width}"
            if n_bytes <= MAX_BYTES:
                return file.getvalue(), f"{n_kept} of {self.n_frames} frames at {size}, {n_bytes / 1e6:.1f} MB"
            scale *= math.sqrt(0.95 * MAX_BYTES / n_bytes)  # 0.95: smaller images compress less well


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)
