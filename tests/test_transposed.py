import re

import keras
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from unet_helpers.plots.transposed import show_transposed_convolution

VALUES = [[1, 2], [3, 4]]
KERNELS = {2: [[1, 2], [3, 5]], 3: [[1, 2, 1], [2, 5, 3], [0, 1, 4]], 4: [[1, 0, 2, 3]] * 3 + [[1, 1, 7, 1]]}


def grid(figure, title: str) -> tuple[np.ndarray, np.ndarray]:
    """What is written in the cells below a title, as it would be read, and the colours of the cells."""
    axes = figure.axes[0]
    head = next(text for text in axes.texts if text.get_text().startswith(title))
    left, top = head.get_position()
    titles = [text.get_position() for text in axes.texts if text.get_ha() == "left"]
    beside, below = [x for x, _ in titles if x > left], [y for x, y in titles if x == left and y < top]
    cells = {}
    for patch in (patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()):
        x, y = patch.get_x() + 0.5, patch.get_y() + 0.5
        if left < x < min(beside, default=np.inf) and max(below, default=-np.inf) < y < top:
            inside = [text.get_text() for text in axes.texts if np.allclose(text.get_position(), (x, y))]
            assert len(inside) == 1
            cells[-y, x] = inside[0], patch.get_facecolor()
    n_columns = len({x for _, x in cells})
    ordered = [cells[place] for place in sorted(cells)]
    return tuple(np.array([cell[i] for cell in ordered], object).reshape(-1, n_columns, *[4] * i) for i in (0, 1))


def numbers(texts: np.ndarray) -> np.ndarray:
    """Each text as the number that it amounts to: "3×2" is 6, "3+4" is 7."""
    return np.vectorize(lambda text: float(np.sum([np.prod([float(factor) for factor in term.split("×")])
                        for term in re.findall(r"-?[^-+\s]+", text)])))(texts)  # fmt: skip


def by_keras(values, kernel, padding: str) -> np.ndarray:
    layer = keras.layers.Conv2DTranspose(1, len(kernel), strides=2, padding=padding, use_bias=False)
    values, kernel = np.asarray(values, "f4"), np.asarray(kernel, "f4")
    layer.build((1, *values.shape, 1))
    layer.set_weights([kernel[..., None, None]])
    return np.asarray(layer(values[None, ..., None]))[0, ..., 0]


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("values", [VALUES, [[1, -2, 0.5]]])
def test_the_numbers_are_those_of_keras(values, size):
    figure = show_transposed_convolution(values, KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "input")[0]), values)
    np.testing.assert_allclose(numbers(grid(figure, "kernel")[0]), KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "stamps")[0]), by_keras(values, KERNELS[size], "valid"))
    np.testing.assert_allclose(numbers(grid(figure, "result")[0]), by_keras(values, KERNELS[size], "same"))


def test_each_value_stamps_in_its_own_shade():
    figure = show_transposed_convolution(VALUES, KERNELS[2])
    shades, texts = grid(figure, "stamps")[1], grid(figure, "stamps")[0]
    inputs = grid(figure, "input")[1]
    for i, j in np.ndindex(2, 2):
        assert (shades[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] == inputs[i, j]).all()
    assert len({tuple(shade) for shade in inputs.reshape(4, 4)}) == 4
    assert texts[2].tolist() == ["3×1", "3×2", "4×1", "4×2"]
    assert "No stamps overlap" in figure.alt


def test_overlaps_are_added_and_shaded_apart():
    figure = show_transposed_convolution(VALUES, KERNELS[3])
    texts, shades = grid(figure, "stamps")
    assert texts.shape == (5, 5)
    assert texts[0].tolist() == ["1", "2", "1+2", "4", "2"]
    assert texts[2, 2] == "4+0\n+3+4"
    inputs = {tuple(shade) for shade in grid(figure, "input")[1].reshape(4, 4)}
    overlaps = np.vectorize(lambda text: "+" in text)(texts)
    for place in np.ndindex(5, 5):
        assert (tuple(shades[place]) in inputs) != overlaps[place]
    result = "; ".join(" ".join(f"{number:g}" for number in row) for row in by_keras(VALUES, KERNELS[3], "same"))
    assert f"input 1 2; 3 4, kernel 1 2 1; 2 5 3; 0 1 4, result {result}." in figure.alt
    assert "Stamps overlap and are added. What is outside the frame is cut off." in figure.alt


def test_all_numbers_fit_into_their_cells():
    for size in KERNELS:
        figure = show_transposed_convolution(VALUES, KERNELS[size])
        figure.draw_without_rendering()
        axes = figure.axes[0]
        cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
        cells = [text for text in axes.texts if text.get_ha() == "center" and text.get_text() != "→"]
        assert max(text.get_window_extent().width for text in cells) <= cell


def test_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"values: expected rows of numbers.*found the shape \(3,\)"):
        show_transposed_convolution([1, 2, 3], KERNELS[2])
    for kernel in ([[1, 2]], [[1]], [1, 2]):
        with pytest.raises(ValueError, match="kernel: expected a square of 2x2 numbers or more"):
            show_transposed_convolution(VALUES, kernel)
