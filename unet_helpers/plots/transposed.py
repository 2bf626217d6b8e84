"""What a transposed convolution does, in numbers that can be added by hand: how a U-Net's way up gets larger."""

import numpy as np
from matplotlib.patches import Rectangle

from .figures import FONT, WIDTH, InlineFigure, new_figure

TITLE = 14.5  # points, of the titles
SHADES = np.array(["#9fd4f2", "#f5c869", "#e7b3cf", "#f7ee8b", "#8fd0bd", "#e8a06a"])  # readable under black


def show_transposed_convolution(values, kernel) -> InlineFigure:
    """What a transposed convolution does whose kernel is as wide as its stride: each value stamps the kernel times it.
    values: (h, w) numbers; kernel: (k, k) numbers. Few and small ones, so that they can be followed by eye.
    The result is (k * h, k * w), as keras.layers.Conv2DTranspose(1, k, strides=k) computes it."""
    values, kernel = np.asarray(values), np.asarray(kernel)
    (height, width), k = values.shape, len(kernel)
    stamps = np.ones((k, k), int)
    result, write = np.kron(values, kernel) + 0, np.vectorize("{:g}".format)  # + 0: no -0
    factors = np.vectorize("{:g}×{:g}".format)(np.kron(values, stamps), np.tile(kernel, values.shape))
    rows = ("; ".join(" ".join(row) for row in write(grid)) for grid in (values, kernel, result))
    x, y_result, longest = max(width, k) + 1, 0, max(map(len, factors.flat))
    x_result = x + k * width + 1
    if _font_size(x_result + k * width, longest) < FONT:  # too small on a phone: the result below the stamps
        x_result, y_result = x, -k * height - 1.2
    n_columns, n_rows = x_result + k * width, max(k * height - y_result, height + k + 1.2)
    alt = "Transposed convolution with stride {}: input {}, kernel {}, result {}. No stamps overlap.".format(k, *rows)
    figure, axes = new_figure(alt, size=(WIDTH, (n_rows + 0.9) * WIDTH / (n_columns + 0.2)))
    axes.set(xlim=(-0.1, n_columns + 0.1), ylim=(-n_rows - 0.1, 0.8), aspect="equal")
    axes.set_axis_off()
    numbers = np.arange(values.size).reshape(values.shape)
    shades, stamp_shades = (SHADES[grid % len(SHADES)] for grid in (numbers, np.kron(numbers, stamps)))
    _draw_grid(axes, 0, 0, "input", write(values), shades)
    _draw_grid(axes, 0, -height - 1.2, "kernel", write(kernel), np.full(kernel.shape, "white"))
    _draw_grid(axes, x, 0, "stamps: value × kernel", factors, stamp_shades)
    _draw_grid(axes, x_result, y_result, "result", write(result), stamp_shades)
    for left, top in ((x, 0), (x_result, y_result)):
        axes.text(left - 0.5, top - k * height / 2, "→", ha="center", va="center", fontsize=24)
    return figure


def _font_size(n_columns: float, length: int) -> float:
    """Points, with which a text of so many letters fits into one of n_columns cells across the figure."""
    return min(17, 1.45 * 72 * WIDTH / (n_columns + 0.2) / length)


def _draw_grid(axes, left: float, top: float, title: str, texts: np.ndarray, shades: np.ndarray) -> None:
    """Cells with texts and shades below a title. (left, top): the corner in the axes."""
    axes.text(left, top + 0.15, title, fontsize=TITLE, va="bottom")
    size = _font_size(np.ptp(axes.get_xlim()) - 0.2, max(map(len, texts.flat)))
    for (row, column), text in np.ndenumerate(texts):
        x, y = left + column, top - row - 1
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shades[row, column], edgecolor="black"))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size)
