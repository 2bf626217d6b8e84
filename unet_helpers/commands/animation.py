"""A short animated GIF that stays small: each image beside its prediction."""

import io
import math

import numpy as np
from PIL import Image

MAX_BYTES = 3_000_000
MAX_FRAMES, MAX_SIDE = 100, 400  # MAX_SIDE: of the image, in pixels
LONGEST = 200  # milliseconds that a frame is shown: where frames are left out, the animation is quicker, not jerky
GAP = 4  # pixels between image and prediction


class Animation:
    """Collects the frames: `add` each, then `make`.

    n_frames: how many will be added; of more than MAX_FRAMES, evenly spaced ones are kept, so that memory stays small.
    duration: milliseconds of a frame.
    """

    def __init__(self, n_frames: int, duration: float = 100):
        self.n_frames, self.duration, self.n_added = n_frames, duration, 0
        self.frames: list[list[Image.Image]] = []
        self.chosen = set(np.linspace(0, n_frames - 1, min(n_frames, MAX_FRAMES)).round().astype(int).tolist())
        self.size: tuple[int, int] | None = None  # (height, width) of the first image

    def add(self, image: np.ndarray, colors: np.ndarray) -> None:
        """image, colors: (H, W, 3) uint8. Raises ValueError if they are not as large as those before."""
        self.size = self.size or image.shape[:2]
        if image.shape[:2] != self.size:
            raise ValueError(f"found {'{}x{}'.format(*image.shape[:2])} among {'{}x{}'.format(*self.size)}")
        if self.n_added in self.chosen:
            scale = min(1, MAX_SIDE / max(self.size))
            self.frames.append([_resize(Image.fromarray(panel), scale) for panel in (image, colors)])
        self.n_added += 1

    def make(self) -> tuple[bytes, str]:
        """The GIF, at most MAX_BYTES, and what it holds: "100 of 120 frames at 192x516, 2.9 MB"."""
        n_kept, scale = len(self.frames), 1.0
        duration = max(20, round(min(LONGEST, self.duration * self.n_added / n_kept)))
        while True:
            first, *others = (_side_by_side(*frame, scale) for frame in self.frames)
            file = io.BytesIO()
            first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
            n_bytes, size = len(file.getvalue()), f"{first.height}x{first.width}"
            if n_bytes <= MAX_BYTES:
                return file.getvalue(), f"{n_kept} of {self.n_frames} frames at {size}, {n_bytes / 1e6:.1f} MB"
            scale *= math.sqrt(0.95 * MAX_BYTES / n_bytes)  # 0.95: smaller images compress less well


def _side_by_side(image: Image.Image, colors: Image.Image, scale: float) -> Image.Image:
    image, colors = _resize(image, scale), _resize(colors, scale)
    frame = Image.new("RGB", (2 * image.width + GAP, image.height), "white")
    frame.paste(image, (0, 0))
    frame.paste(colors, (image.width + GAP, 0))
    return frame.quantize(256, dither=Image.Dither.NONE)  # the noise of dithering would double the size


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)
