"""Which size would suit the pictures better: photographs taken upright leave much of a wide size grey."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .decoding import fitted_box
from .labels import Pair
from .recipe import Recipe


def note_better_size(pairs: Sequence[Pair], recipe: Recipe) -> None:
    """Print which IMAGE_SIZE would show the pictures larger, if there is one; see `better_size`."""
    filled, better = better_size(pairs, recipe)
    if better:
        print(
            f"note: pictures fill {filled:.0%} of {recipe.image_size}, the rest stays grey; IMAGE_SIZE = {better} "
            "would show them larger"
        )


def better_size(
    pairs: Sequence[Pair], recipe: Recipe, n_pictures: int = 20
) -> tuple[float, tuple[int, int] | None]:
    """(share of recipe.image_size that the pictures fill, 0..1; the (height, width) that would show them larger).

    That size has the middle of their proportions and about as many pixels. It is None where they fill three quarters
    already, or would hardly be larger. n_pictures: about how many of them are looked at.
    """
    sizes = []
    for pair in pairs[:: 1 + len(pairs) // n_pictures]:
        with Image.open(pair.image) as image:
            sizes.append((image.height, image.width))
    ratio = np.median([width / height for height, width in sizes])
    step = 2 * recipe.size_multiple  # halves of it fit, too
    height = math.sqrt(math.prod(recipe.image_size) / ratio)
    better = tuple(max(1, round(side / step)) * step for side in (height, height * ratio))
    shown = _shown_pixels(sizes, recipe.image_size)
    filled = shown / math.prod(recipe.image_size)
    return filled, better if filled < 0.75 and _shown_pixels(sizes, better) > 1.1 * shown else None


def _shown_pixels(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> float:
    """How many pixels of image_size a picture fills, in the mean of those of sizes, all (height, width)."""
    boxes = [fitted_box(size, image_size) for size in sizes]
    return float(np.mean([(bottom - top) * (right - left) for top, left, bottom, right in boxes]))
