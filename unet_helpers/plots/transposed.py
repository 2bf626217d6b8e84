"""What a transposed convolution does, in numbers that can be added by hand: how a U-Net's way up gets larger."""

import numpy as np
from matplotlib.patches import Rectangle

from .figures import WIDTH, InlineFigure, new_figure

FONT = 14.5  # points
SHADES = ("#9fd4f2", "#f5c869", "#e7b3cf", "#f7ee8b", "#8fd0bd", "#e8a06a")  # of the values; readable under black
SHARED, UNSTAMPED = -1, -2  # owner of a cell that several values, or none, contribute to
OTHERS = {SHARED: "#e0e0e0", UNSTAMPED: "white"}


def show_transposed_convolution(values, kernel) -> InlineFigure:
    """What a transposed convolution with stride 2 does: each value stamps the kernel times itself; overlaps add up.

    values: (h, w) numbers; kernel: (k, k) numbers, k >= 2. Few and small ones, so that they can be added by hand.
    The result is (2h, 2w), as keras.layers.Conv2DTranspose(1, k, strides=2, padding="same") computes it.
    """
    values, kernel = np.asarray(values), np.asarray(kernel)
    (height, width), k = values.shape, len(kernel)
    if kernel.shape != (k, k) or k < 2:
        raise ValueError(f"kernel: expected a square of 2x2 numbers or more, found the shape {kernel.shape}")
    stamped, owners = _stamp(values, kernel)
    overlap = k > 2
    first = (k - 2) // 2  # padding="same" crops what is more than twice the size
    kept = np.s_[first : first + 2 * height, first : first + 2 * width]
    result = np.vectorize(lambda products: sum(a * b for a, b in products), otypes=[float])(stamped[kept])

    n_rows, n_columns = max(len(stamped), height + k + 1.2), max(width, k) + 2 + stamped.shape[1] + 2 * width
    write = np.vectorize("{:g}".format)
    rows = ("; ".join(" ".join(row) for row in write(grid)) for grid in (values, kernel, result))
    alt = "Transposed convolution with stride 2: input {}, kernel {}, result {}.".format(*rows)
    added = "Stamps overlap and are added. What is outside the frame is cropped."
    alt += " " + (added if overlap else "No stamps overlap.")
    figure, axes = new_figure(alt, size=(WIDTH, (n_rows + 0.9) * WIDTH / (n_columns + 0.2)))
    axes.set(xlim=(-0.1, n_columns + 0.1), ylim=(-n_rows - 0.1, 0.8), aspect="equal")
    axes.set_axis_off()
    x = max(width, k) + 1
    x_result = x + stamped.shape[1] + 1
    sums = np.vectorize(lambda products: _sum_in_words(products, overlap))(stamped)
    title = "stamps, added where grey" if overlap else "stamps: value × kernel"
    _draw_grid(axes, 0, 0, "input", write(values), np.arange(values.size).reshape(values.shape))
    _draw_grid(axes, 0, -height - 1.2, "kernel", write(kernel), np.full(kernel.shape, UNSTAMPED))
    _draw_grid(axes, x, 0, title, sums, owners)
    _draw_grid(axes, x_result, -first, "result", write(result), owners[kept])
    for left in (x, x_result):
        axes.text(left - 0.5, -len(stamped) / 2, "→", ha="center", va="center", fontsize=24)
    for left in (x + first, x_result) if overlap else ():
        style = {"fill": False, "linewidth": 3.5, "linestyle": "--"}
        axes.add_patch(Rectangle((left, -first - 2 * height), 2 * width, 2 * height, **style))
    return figure


def _stamp(values, kernel) -> tuple[np.ndarray, np.ndarray]:
    """For each cell of the stamped grid: the (value, weight) pairs that meet there; the value's number or SHARED."""
    (height, width), k = values.shape, len(kernel)
    owners = np.full((2 * height - 2 + k, 2 * width - 2 + k), SHARED)
    cells = np.frompyfunc(lambda _: [], 1, 1)(owners)
    for number, (i, j) in enumerate(np.ndindex(values.shape)):
        for a, b in np.ndindex(kernel.shape):
            place = (2 * i + a, 2 * j + b)
            owners[place] = SHARED if cells[place] else number
            cells[place].append((values[i, j], kernel[a, b]))
    return cells, owners


def _sum_in_words(products, overlap: bool) -> str:
    """Factors, "3×2", where no stamps overlap, else products, "6" or "3+4", and four of them in two lines."""
    if not overlap:
        return "{:g}×{:g}".format(*products[0])
    texts = [f"{value * weight:g}" for value, weight in products]
    return "\n+".join("+".join(texts[i : i + 2]) for i in range(0, len(texts), 2)).replace("+-", "-")


def _draw_grid(axes, left: float, top: float, title: str, texts: np.ndarray, owners: np.ndarray) -> None:
    """Cells with texts, in the shade of the value that each comes from. (left, top): the corner in the axes."""
    axes.text(left, top + 0.15, title, fontsize=FONT, va="bottom")
    cell = 72 * WIDTH / np.ptp(axes.get_xlim())  # points
    size = min(17, 1.3 * cell / max(len(line) for text in texts.flat for line in text.split("\n")))
    for (row, column), text in np.ndenumerate(texts):
        x, y, owner = left + column, top - row - 1, owners[row, column]
        color = OTHERS.get(owner) or SHADES[owner % len(SHADES)]
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="black"))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size)
