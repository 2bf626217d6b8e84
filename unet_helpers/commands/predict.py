"""predict: the network's masks of images, written as files that never replace anybody's own."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..images import decode_image
from ..labels import LabelMap, class_pixels, colorize
from ..networks import Network
from ..prediction import predict_mask
from ..storage import write_whole
from . import say_error
from .animation import Animation
from .evaluate import load_checked
from .sources import Source, find_scales, open_source


def predict(
    network: Path, images: Sequence[Path], out: Path, image_size: tuple[int, int] | None, classes: Path | None,
    overwrite: bool,
) -> int:  # fmt: skip
    """Write NAME_ids.png, NAME_colors.png and NAME_overlay.png to out for each image, and an animation of several.

    What can't be read or written is named, and the others are done. Returns how many images and animations failed.
    """
    trained = load_checked(network, classes, image_size)
    for path in images:
        if path.is_dir() and path.resolve() == out.resolve():
            raise ValueError(f"{out}: it is the folder of the images; give another --out, so that both stay apart")
    out.mkdir(parents=True, exist_ok=True)
    writer, sources = Writer(out, overwrite), []
    for path in images:
        with writer.counting_failures():
            sources.append(open_source(path))
    files = [file for source in sources for file in source.files]
    writer.inputs = set(map(os.path.realpath, files))
    bits = {} if trained.bits else find_scales(files)
    for source in sources:
        with writer.counting_failures():
            _predict_source(source, trained, writer, bits)
    failed = f"; images or animations that failed: {writer.n_failed}" * bool(writer.n_failed)
    print(f"{out}: {writer.n_written} files written{failed}")
    return writer.n_failed


class Writer:
    """Writes files to a folder, whole or not at all.

    None replaces one that was there before, unless overwrite, and none ever replaces an input or another of the same
    call: of two images with the same name, the second gets a number.
    """

    def __init__(self, folder: Path, overwrite: bool):
        self.folder, self.overwrite = folder, overwrite
        self.inputs: set[str] = set()  # real paths
        self.taken: set[str] = set()  # names of this call
        self.n_written = self.n_failed = 0

    @contextlib.contextmanager
    def counting_failures(self) -> Iterator[None]:
        """What can't be read or written in the block is said and counted, and the rest goes on."""
        try:
            yield
        except (ValueError, OSError) as error:
            say_error(str(error))
            self.n_failed += 1

    def reserve(self, stem: str, endings: Sequence[str]) -> list[Path]:
        """New paths stem + ending. Raises ValueError for one that may not be replaced."""
        number, name = 1, stem
        while name.casefold() in self.taken:  # on some disks, names that differ in capitals are one file
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name.casefold())
        paths = [self.folder / f"{name}{ending}" for ending in endings]
        for path in paths:
            if os.path.realpath(path) in self.inputs:
                raise ValueError(f"{path}: it is one of the images themselves; give another --out")
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


def _predict_source(source: Source, network: Network, writer: Writer, bits: dict[Path, int]) -> None:
    """bits: of 16-bit images, from `find_scales`."""
    animation, differs = Animation(source.n_frames, source.duration), ""
    for number, (stem, frame) in enumerate(source.frames, 1):
        with writer.counting_failures():
            paths = writer.reserve(stem, ("_ids.png", "_colors.png", "_overlay.png"))
            image = decode_image(frame, network.bits or bits.get(frame)) if isinstance(frame, Path) else frame
            mask = predict_mask(network, image)
            colors = colorize(mask, network.labels)
            for path, pixels in zip(paths, (mask, colors, image // 2 + colors // 2), strict=True):
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                writer.write(path, file.getvalue())
            count = f"[{number}/{source.n_frames}] " if source.n_frames > 1 else ""
            print(f"{count}{paths[0].name.removesuffix('_ids.png')}: {_say_shares(mask, network.labels)}", flush=True)
            try:
                animation.add(image, colors)
            except ValueError as error:
                differs = differs or str(error)
    if differs:
        print(f"{source.name}: no animation, because the images differ in size ({differs})")
    elif len(animation.frames) > 1:
        (path,) = writer.reserve(f"{source.name}_animation", [".gif"])
        content, what = animation.make()
        writer.write(path, content)
        print(f"{path.name}: {what}")


def _say_shares(mask: np.ndarray, labels: LabelMap, most: int = 4) -> str:
    """ "road 41 %, sky 30 %": the largest shares of a mask."""
    shares = class_pixels(mask, labels) / mask.size
    order = [k for k in np.argsort(-shares) if shares[k] > 0]
    return ", ".join(f"{labels.names[k]} {shares[k]:.0%}" for k in order[:most]) + ", ..." * (len(order) > most)
