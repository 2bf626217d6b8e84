"""Every figure of the tutorial. A class has one colour in all of them, and a legend says which."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from PIL import Image

from .evaluation import Scores
from .labels import VOID, LabelMap, class_pixels, colorize

WIDTH = 12  # inches: the width of a notebook
EDGE = {"edgecolor": "black", "linewidth": 0.5}  # so that pale colours are seen on white


def _subplots(*args, **options):
    """`plt.subplots`, closed at once: a notebook then shows the figure where it is the cell's answer, not twice."""
    figure, axes = plt.subplots(*args, layout="constrained", **options)
    plt.close(figure)
    return figure, axes


def show_classes(labels: LabelMap, pixels: np.ndarray):
    """Bars: the share of the pixels (K,) that each class has, on a logarithmic axis, in the class's colour."""
    order = np.argsort(pixels)
    share = 100 * pixels[order] / pixels.sum()
    figure, axes = _subplots(figsize=(WIDTH * 0.75, 0.3 * len(order) + 1))
    axes.barh(range(len(order)), share, color=labels.palette[order] / 255, **EDGE)
    for y, value in enumerate(share):
        axes.text(value * 1.1, y, f"{value:.2g} %", va="center")
    axes.set_yticks(np.arange(len(order)), [f"{labels.names[k]} ({k})" for k in order])
    axes.set(xscale="log", xlabel="share of the pixels (%), logarithmic", title="How often each class occurs")
    axes.set_xlim(right=300)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def show_columns(columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap, row_titles: Sequence[str] = ()):
    """Pictures in columns with a title each, and a legend of the classes that occur.

    columns: title -> one array per row: (H, W, 3) picture, 0..255; (H, W) uint8 mask of class ids, or bool errors.
    row_titles: a text beside each row.
    """
    n_rows = len(next(iter(columns.values())))
    height, width = next(iter(columns.values()))[0].shape[:2]
    cell = WIDTH / len(columns)
    figure, axes = _subplots(
        n_rows, len(columns), figsize=(WIDTH, n_rows * cell * height / width + 0.8), squeeze=False
    )
    seen = np.zeros(labels.n_classes, bool)
    void = False
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, picture in enumerate(pictures):
            if picture.dtype == bool:
                # Errors: black on white, so that they are told apart by everybody.
                picture = np.where(picture[..., None], np.uint8([0, 0, 0]), np.uint8([235, 235, 235]))
            elif picture.ndim == 2:
                seen |= class_pixels(picture, labels) > 0
                void |= bool((picture == VOID).any())
                picture = colorize(picture, labels)
            axes[row, column].imshow(np.asarray(picture, np.uint8), interpolation="none")
            axes[row, column].set(xticks=[], yticks=[])
    for row, title in enumerate(row_titles):
        axes[row, 0].set_ylabel(title)
    _legend(figure, labels, np.flatnonzero(seen), void)
    return figure


def _legend(figure, labels: LabelMap, classes: Sequence[int], void: bool) -> None:
    entries = [(labels.names[k], labels.palette[k] / 255) for k in classes] + [("void", (1, 1, 1))] * void
    if entries:
        patches = [Patch(facecolor=color, label=name, **EDGE) for name, color in entries]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 7), frameon=False)


def show_pairs(images, masks, labels: LabelMap, row_titles: Sequence[str] = ()):
    """Rows of picture, mask and the mask laid over the picture: an edge that does not fit is seen at once.

    A mask that is smaller than its picture is enlarged by nearest neighbour.
    """
    masks = [enlarge(mask, image.shape[:2]) for image, mask in zip(images, masks, strict=True)]
    overlays = [np.asarray(i) // 2 + colorize(m, labels) // 2 for i, m in zip(images, masks, strict=True)]
    return show_columns({"image": images, "mask": masks, "mask over image": overlays}, labels, row_titles)


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) ids -> (*size) ids by nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def show_predictions(images, true, predicted, labels: LabelMap, row_titles: Sequence[str] = ()):
    """Rows of image, truth, prediction and errors (black: wrong class; void never counts as wrong)."""
    errors = [(t != p) & (t != VOID) for t, p in zip(true, predicted, strict=True)]
    columns = {"image": images, "truth": true, "prediction": predicted, "errors (black)": errors}
    return show_columns(columns, labels, row_titles)


def plot_curves(log: Mapping[str, Sequence[float]]):
    """Loss and mIoU of training and validation against the epoch. log: the columns of CSVLogger's file."""
    epochs = np.asarray(log["epoch"]) + 1
    figure, axes = _subplots(1, 2, figsize=(WIDTH, 4))
    units = {"loss": "cross-entropy + Dice loss", "mIoU": "mIoU (0..1)"}
    for panel, (name, unit) in zip(axes, units.items(), strict=True):
        panel.plot(epochs, log[name], "o-", color="#0072b2", label="training (augmented)")
        panel.plot(epochs, log[f"val_{name}"], "s--", color="#d55e00", label="validation")
        panel.set(xlabel="epoch", ylabel=unit, title=name, ylim=(0, None))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend()
    return figure


def plot_iou(scores: Scores, baseline: Scores):
    """Bars: the IoU of each class, sorted, in the class's colour, with both mIoUs as lines."""
    labels, iou = scores.labels, scores.iou
    order = np.argsort(np.nan_to_num(iou, nan=-1))
    figure, axes = _subplots(figsize=(WIDTH * 0.75, 0.3 * len(order) + 1.2))
    axes.barh(range(len(order)), np.nan_to_num(iou[order]), color=labels.palette[order] / 255, **EDGE)
    for y, k in enumerate(order):
        axes.text(np.nan_to_num(iou[k]) + 0.01, y, "absent" if np.isnan(iou[k]) else f"{iou[k]:.2f}", va="center")
    axes.axvline(scores.miou, color="#0072b2", label=f"mIoU {scores.miou:.3f}")
    axes.axvline(baseline.miou, color="#d55e00", linestyle="--", label=f"mIoU of the baseline {baseline.miou:.3f}")
    axes.set_yticks(np.arange(len(order)), [labels.names[k] for k in order])
    axes.set(xlim=(0, 1), xlabel="intersection over union (0..1)", title="IoU of each class")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    return figure


def plot_confusion(scores: Scores):
    """The confusion matrix, each row in percent of the true class's pixels: the diagonal is what was found."""
    confusion, labels = scores.confusion, scores.labels
    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(100 * confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    figure, axes = _subplots(figsize=(WIDTH * 0.75, WIDTH * 0.62))
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for true, predicted in np.argwhere(share >= 1):
        value = share[true, predicted]
        axes.text(predicted, true, f"{value:.0f}", ha="center", va="center", color="white" if value < 60 else "black")
    ticks = np.arange(labels.n_classes)
    axes.set_xticks(ticks, labels.names, rotation=45, ha="right")
    axes.set_yticks(ticks, labels.names)
    axes.set(xlabel="predicted class", ylabel="true class", title="Where the pixels of each true class went (%)")
    figure.colorbar(image, label="share of the true class's pixels (%)")
    return figure
