"""Which size would suit the images better: one that leaves little of it grey, and does not enlarge them."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .decoding import fitted_box
from .labels import Pair
from .model import LARGEST_SIDE
from .naming import setting
from .parameters import SIDE_STEP
from .recipe import Recipe

ENLARGED = 1.25  # from here on it is said: what is added are pixels, not details


def note_better_size(pairs: Sequence[Pair], recipe: Recipe, n_images: int = 20) -> None:
    """Print which IMAGE_SIZE would suit the images better, if there is one.

    It has the proportions of the images, as they are in the middle, and about as many pixels as recipe.image_size, but
    no more than the images. Upright images leave more than a quarter of a wide size grey; small ones are enlarged,
    which takes time and shows nothing new. n_images: about how many of them are looked at.
    """
    sizes = []
    for pair in pairs[:: 1 + len(pairs) // n_images]:
        with Image.open(pair.image) as image:
            sizes.append((image.height, image.width))
    own = np.median(sizes, axis=0)
    enlarged = float(min(recipe.image_size / own))
    n_pixels = min(math.prod(recipe.image_size), math.prod(own))
    step = 2 * SIDE_STEP  # halves of it fit, too
    height = math.sqrt(n_pixels * own[0] / own[1])
    better = tuple(min(max(1, round(side / step)) * step, LARGEST_SIDE) for side in (height, height * own[1] / own[0]))
    shown, larger = _shown_pixels(sizes, recipe.image_size), _shown_pixels(sizes, better)
    filled, size = shown / math.prod(recipe.image_size), "{}x{}".format(*recipe.image_size)
    todo = setting("IMAGE_SIZE", better)
    if enlarged > ENLARGED and math.prod(better) < math.prod(recipe.image_size):
        what = f"images of {own[0]:.0f}x{own[1]:.0f} are enlarged {enlarged:.1f} times to fit {size}"
        print(f"note: {what}; {todo} would show as much in less time")
    elif filled < 0.75 and larger > 1.1 * shown:
        print(f"note: images fill {filled:.0%} of {size}, the rest stays grey; {todo} would show them larger")


def _shown_pixels(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> float:
    """How many pixels of image_size an image fills, in the mean of those of sizes, all (height, width)."""
    boxes = [fitted_box(size, image_size) for size in sizes]
    return float(np.mean([(bottom - top) * (right - left) for top, left, bottom, right in boxes]))
