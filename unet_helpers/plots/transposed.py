"""What a transposed convolution does, in numbers that can be added by hand: how a U-Net's way up gets larger."""

import numpy as np
from matplotlib.patches import Rectangle

from .figures import WIDTH, InlineFigure, new_figure

FONT = 14.5  # points
SHADES = np.array(["#9fd4f2", "#f5c869", "#e7b3cf", "#f7ee8b", "#8fd0bd", "#e8a06a"])  # readable under black
SHARED = "#e0e0e0"  # of cells that several values contribute to


def show_transposed_convolution(values, kernel) -> InlineFigure:
    """What a transposed convolution with stride 2 does: each value stamps the kernel times itself; overlaps add up.

    values: (h, w) numbers; kernel: (k, k) numbers, k >= 2. Few and small ones, so that they can be added by hand.
    The result is (2h, 2w), as keras.layers.Conv2DTranspose(1, k, strides=2, padding="same") computes it.
    """
    values, kernel = np.asarray(values), np.asarray(kernel)
    (height, width), k = values.shape, len(kernel)
    stamps = np.full((values.size, 2 * height - 2 + k, 2 * width - 2 + k), np.nan)  # NaN where a value stamps nothing
    for number, (i, j) in enumerate(np.ndindex(values.shape)):
        stamps[number, 2 * i : 2 * i + k, 2 * j : 2 * j + k] = values[i, j] * kernel
    first = (k - 2) // 2  # padding="same" crops what is more than twice the size
    kept = np.s_[first : first + 2 * height, first : first + 2 * width]
    result, stamped = np.nansum(stamps, axis=0)[kept], ~np.isnan(stamps)
    shades = SHADES[np.arange(values.size) % len(SHADES)]
    stamp_shades = np.where(stamped.sum(axis=0) > 1, SHARED, shades[stamped.argmax(axis=0)])
    if k > 2:
        title, note = "stamps, added where grey", "Stamps overlap and are added. What is outside the frame is cropped."
        sums = np.array([_sum_in_words(cell) for cell in stamps.reshape(values.size, -1).T]).reshape(stamps.shape[1:])
    else:
        title, note = "stamps: value × kernel", "No stamps overlap."
        factors = values.repeat(2, axis=0).repeat(2, axis=1), np.tile(kernel, values.shape)
        sums = np.vectorize("{:g}×{:g}".format)(*factors)
    write = np.vectorize("{:g}".format)
    rows = ("; ".join(" ".join(row) for row in write(grid)) for grid in (values, kernel, result))
    alt = "Transposed convolution with stride 2: input {}, kernel {}, result {}. {}".format(*rows, note)
    x, n_rows = max(width, k) + 1, max(sums.shape[0], height + k + 1.2)
    x_result = x + sums.shape[1] + 1
    n_columns = x_result + 2 * width
    figure, axes = new_figure(alt, size=(WIDTH, (n_rows + 0.9) * WIDTH / (n_columns + 0.2)))
    axes.set(xlim=(-0.1, n_columns + 0.1), ylim=(-n_rows - 0.1, 0.8), aspect="equal")
    axes.set_axis_off()
    _draw_grid(axes, 0, 0, "input", write(values), shades.reshape(values.shape))
    _draw_grid(axes, 0, -height - 1.2, "kernel", write(kernel), np.full(kernel.shape, "white"))
    _draw_grid(axes, x, 0, title, sums, stamp_shades)
    _draw_grid(axes, x_result, -first, "result", write(result), stamp_shades[kept])
    for left in (x, x_result):
        axes.text(left - 0.5, -len(sums) / 2, "→", ha="center", va="center", fontsize=24)
    for left in (x + first, x_result) if k > 2 else ():
        style = {"fill": False, "linewidth": 3.5, "linestyle": "--"}
        axes.add_patch(Rectangle((left, -first - 2 * height), 2 * width, 2 * height, **style))
    return figure


def _sum_in_words(products: np.ndarray) -> str:
    """The terms of a cell, "6" or "3+4", and four of them in two lines; NaN is none."""
    texts = [f"{product:g}" for product in products[~np.isnan(products)]]
    return "\n+".join("+".join(texts[i : i + 2]) for i in range(0, len(texts), 2)).replace("+-", "-")


def _draw_grid(axes, left: float, top: float, title: str, texts: np.ndarray, shades: np.ndarray) -> None:
    """Cells with texts and shades below a title. (left, top): the corner in the axes."""
    axes.text(left, top + 0.15, title, fontsize=FONT, va="bottom")
    cell = 72 * WIDTH / np.ptp(axes.get_xlim())  # points
    size = min(17, 1.3 * cell / max(len(line) for text in texts.flat for line in text.split("\n")))
    for (row, column), text in np.ndenumerate(texts):
        x, y = left + column, top - row - 1
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shades[row, column], edgecolor="black"))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size)
