"""What a transposed convolution does, in numbers that can be added by hand: how a U-Net's way up gets larger."""

import numpy as np
from matplotlib.patches import Rectangle

from .figures import WIDTH, InlineFigure, new_figure

FONT = 14.5  # points
SHADES = np.array(["#9fd4f2", "#f5c869", "#e7b3cf", "#f7ee8b", "#8fd0bd", "#e8a06a"])  # readable under black


def show_transposed_convolution(values, kernel) -> InlineFigure:
    """What a transposed convolution does whose kernel is as wide as its stride: each value stamps the kernel times it.

    values: (h, w) numbers; kernel: (k, k) numbers. Few and small ones, so that they can be followed by eye.
    The result is (k * h, k * w), as keras.layers.Conv2DTranspose(1, k, strides=k) computes it.
    """
    values, kernel = np.asarray(values), np.asarray(kernel)
    (height, width), k = values.shape, len(kernel)
    stamps = np.ones((k, k), int)
    result, write = np.kron(values, kernel), np.vectorize("{:g}".format)
    factors = np.vectorize("{:g}×{:g}".format)(np.kron(values, stamps), np.tile(kernel, values.shape))
    rows = ("; ".join(" ".join(row) for row in write(grid)) for grid in (values, kernel, result))
    x, n_rows = max(width, k) + 1, max(k * height, height + k + 1.2)
    x_result = x + k * width + 1
    n_columns = x_result + k * width
    alt = "Transposed convolution with stride {}: input {}, kernel {}, result {}. No stamps overlap.".format(k, *rows)
    figure, axes = new_figure(alt, size=(WIDTH, (n_rows + 0.9) * WIDTH / (n_columns + 0.2)))
    axes.set(xlim=(-0.1, n_columns + 0.1), ylim=(-n_rows - 0.1, 0.8), aspect="equal")
    axes.set_axis_off()
    numbers = np.arange(values.size).reshape(values.shape)
    shades, stamp_shades = (SHADES[grid % len(SHADES)] for grid in (numbers, np.kron(numbers, stamps)))
    _draw_grid(axes, 0, 0, "input", write(values), shades)
    _draw_grid(axes, 0, -height - 1.2, "kernel", write(kernel), np.full(kernel.shape, "white"))
    _draw_grid(axes, x, 0, "stamps: value × kernel", factors, stamp_shades)
    _draw_grid(axes, x_result, 0, "result", write(result), stamp_shades)
    for left in (x, x_result):
        axes.text(left - 0.5, -k * height / 2, "→", ha="center", va="center", fontsize=24)
    return figure


def _draw_grid(axes, left: float, top: float, title: str, texts: np.ndarray, shades: np.ndarray) -> None:
    """Cells with texts and shades below a title. (left, top): the corner in the axes."""
    axes.text(left, top + 0.15, title, fontsize=FONT, va="bottom")
    cell = 72 * WIDTH / np.ptp(axes.get_xlim())  # points
    size = min(17, 1.3 * cell / max(map(len, texts.flat)))
    for (row, column), text in np.ndenumerate(texts):
        x, y = left + column, top - row - 1
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shades[row, column], edgecolor="black"))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size)
