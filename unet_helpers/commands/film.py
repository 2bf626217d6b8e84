"""A short film, as an animated GIF that stays small: each picture beside the network's answer."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

MAX_BYTES = 3_000_000
MAX_FRAMES, MAX_SIDE = 100, 400  # at first; MAX_SIDE and MIN_SIDE: the longer side of the picture, in pixels
MIN_SIDE = 160  # smaller than that, frames are left out instead
LONGEST = 200  # milliseconds that a frame is shown: frames that were left out make the film quicker, not jerky
GAP = 4  # pixels between picture and answer


class Film:
    """Collects the frames: `add` each, then `make`.

    n_frames: how many will be added; of more than MAX_FRAMES, evenly chosen ones are kept, so that memory stays small.
    duration: milliseconds of a frame.
    """

    def __init__(self, n_frames: int, duration: float = 100):
        self.n_frames, self.duration, self.frames, self.n_added = n_frames, duration, [], 0
        self.chosen = set(_evenly(n_frames, MAX_FRAMES))
        self.size = None  # (height, width) of the first picture

    def add(self, picture: np.ndarray, answer: np.ndarray) -> None:
        """picture, answer: (H, W, 3) uint8. Raises ValueError if they are not as large as those before."""
        self.size = self.size or picture.shape[:2]
        if picture.shape[:2] != self.size:
            raise ValueError(f"found {'{}x{}'.format(*picture.shape[:2])} among {'{}x{}'.format(*self.size)}")
        if self.n_added in self.chosen:
            scale = min(1, MAX_SIDE / max(self.size))
            self.frames.append([_resize(Image.fromarray(panel), scale) for panel in (picture, answer)])
        self.n_added += 1

    def make(self) -> tuple[bytes, str]:
        """The GIF, at most MAX_BYTES, and what it holds: "40 of 120 frames at 192x516, 2.9 MB"."""
        scale, n_kept = 1.0, len(self.frames)
        while True:
            kept = [self.frames[k] for k in _evenly(len(self.frames), n_kept)]
            images = [_side_by_side([_resize(panel, scale) for panel in frame]) for frame in kept]
            content = _encode(images, min(LONGEST, self.duration * self.n_added / n_kept))
            if len(content) <= MAX_BYTES or n_kept == 1:
                break
            # A little less than what the surplus asks for: small pictures do not compress as well.
            shrink = 0.95 * MAX_BYTES / len(content)
            smallest = min(1, MIN_SIDE / max(self.frames[0][0].size))
            if scale > smallest:
                scale = max(smallest, scale * math.sqrt(shrink))
            else:
                n_kept = max(1, int(n_kept * shrink))
        width, height = images[0].size
        return content, f"{n_kept} of {self.n_frames} frames at {height}x{width}, {len(content) / 1e6:.1f} MB"


def _evenly(n: int, most: int) -> list[int]:
    """At most so many of the numbers 0..n-1, evenly spread, the first and the last among them."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)


def _side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    width, height = panels[0].size
    frame = Image.new("RGB", (2 * width + GAP, height), "white")
    for column, panel in enumerate(panels):
        frame.paste(panel, (column * (width + GAP), 0))
    return frame


def _encode(images: Sequence[Image.Image], duration: float) -> bytes:
    # Without dithering: its noise would double the size.
    first, *others = (image.quantize(256, dither=Image.Dither.NONE) for image in images)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=max(20, round(duration)), loop=0)
    return file.getvalue()
