"""Images and masks beside each other: each class in its colour, with a legend, and contours for the colour-blind."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from PIL import Image

from ..labels import VOID, LabelMap, class_pixels, colorize
from .figures import WIDTH, InlineFigure, add_legend, in_style, new_figure

ERRORS = {"orange": (255, 140, 0), "cyan": (0, 235, 255), "yellow": (255, 235, 0), "pink": (255, 150, 200)}
# Parts of a union, in colours of Okabe and Ito.
OVERLAP = {"both": (240, 228, 66), "only ground truth": (86, 180, 233), "only prediction": (213, 94, 0)}
FONT = 10  # points, of names in masks


@in_style
def show_columns(
    columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap, row_titles: Sequence[str] = ()
) -> InlineFigure:
    """Images and masks in columns with a title each, and a legend of the classes that occur.

    With at most three columns, masks get contours, and names of the classes whose colours are hard to tell apart.
    columns: title -> one array per row: (H, W, 3) image, 0..255; (H, W) uint8 mask of class ids, or bool errors.
    row_titles: a text beside each row.
    Raises ValueError for columns of different lengths.
    """
    columns = {title: [np.asarray(array) for array in arrays] for title, arrays in columns.items()}
    rows = list(zip(*columns.values(), strict=True))
    in_order = [array for row in rows for array in row]
    width = (WIDTH - 0.3 * bool(row_titles)) / len(columns) - 0.08
    height = width * in_order[0].shape[0] / in_order[0].shape[1]
    size = (WIDTH, len(rows) * (height + 0.08) + 0.3)
    figure, axes = new_figure(_columns_alt(columns, labels), len(rows), len(columns), size, squeeze=False)
    for panel, array in zip(axes.flat, in_order, strict=True):
        _show(panel, array, labels, width if len(columns) <= 3 else None)
    for panel, title in zip(axes[0], columns, strict=True):
        panel.set_title(title)
    for row, title in enumerate(row_titles):
        axes[row, 0].set_ylabel(textwrap.fill(title, max(8, int(10 * height))))
    add_legend(figure, _legend_entries(_masks(in_order), labels))
    return figure


def _masks(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array for array in arrays if array.ndim == 2 and array.dtype != bool]


def _columns_alt(columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap) -> str:
    alt = f"Images in these columns: {', '.join(columns)}."
    for title, arrays in columns.items():
        pixels = sum(class_pixels(mask, labels) for mask in _masks(arrays))
        if np.any(pixels):
            most = [k for k in np.argsort(-pixels)[:4] if pixels[k]]
            alt += f" {title}: {', '.join(f'{labels.names[k]} {pixels[k] / pixels.sum():.0%}' for k in most)}."
    return alt


def _show(axes, array: np.ndarray, labels: LabelMap, contour_width: float | None) -> None:
    """An image, mask or bool errors; contour_width: the panel's width in inches if a mask gets contours."""
    if array.dtype == bool:
        array = np.where(array[..., None], error_color(labels)[1], 70)
    elif array.ndim == 2:
        step = 1 + array.shape[1] // 1000  # more lines than a figure has pixels take seconds
        array = array[::step, ::step]
        if contour_width:
            draw_contours(axes, array, labels, contour_width)
        array = colorize(array, labels)
    axes.imshow(np.asarray(array, np.uint8), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.5)


def _legend_entries(masks: Sequence[np.ndarray], labels: LabelMap) -> list[tuple[str, np.ndarray]]:
    ids = np.flatnonzero(sum(np.bincount(mask.ravel(), minlength=256) for mask in masks))
    return [("void" if k == VOID else labels.names[k], labels.palette[k]) for k in ids]


def show_pairs(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: LabelMap, row_titles: Sequence[str] = ()
) -> InlineFigure:
    """Rows of image, mask and mask laid over the image, (H, W, 3) and (H, W) alike."""
    overlays = [np.asarray(i) // 2 + colorize(m, labels) // 2 for i, m in zip(images, masks, strict=True)]
    return show_columns({"image": images, "mask": masks, "mask over image": overlays}, labels, row_titles)


def error_color(labels: LabelMap) -> tuple[str, tuple[int, int, int]]:
    """Name and (red, green, blue), 0..255, of a colour that is far from every class's and from void's."""
    used = labels.palette[[*range(labels.n_classes), VOID]].astype(int)
    return max(ERRORS.items(), key=lambda item: np.linalg.norm(used - item[1], axis=1).min())


def _grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) image 0..255 -> (*size, 3) uint8, grey and darkened, so that colours laid over it stand out."""
    grey = Image.fromarray(np.asarray(image, np.uint8)).convert("L").resize(size[::-1])
    return np.repeat(np.asarray(grey)[..., None] // 5 * 3, 3, axis=2)


def _errors(image: np.ndarray, true: np.ndarray, predicted: np.ndarray, labels: LabelMap):
    """Wrong pixels, (H, W) bool, without void; a title; them in `error_color` over the grey image, (H, W, 3) uint8."""
    wrong, (name, color) = (true != predicted) & (true != VOID), error_color(labels)
    return wrong, f"errors ({name})", np.where(wrong[..., None], np.uint8(color), _grey(image, wrong.shape))


def show_predictions(
    images: Sequence[np.ndarray], true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], labels: LabelMap,
    row_titles: Sequence[str] = (),
) -> InlineFigure:  # fmt: skip
    """Rows of image, ground truth, prediction and errors over the grey image; void is void in the prediction, too."""
    predicted = [np.where(t == VOID, np.uint8(VOID), p) for t, p in zip(true, predicted, strict=True)]
    rows = [_errors(*row, labels) for row in zip(images, true, predicted, strict=True)]
    wrong, titles, errors = zip(*rows, strict=True)
    columns = {"image": images, "ground truth": true, "prediction": predicted, titles[0]: errors}
    figure = show_columns(columns, labels, row_titles)
    shares = (f"{100 * w.sum() / max(1, (t != VOID).sum()):.1f} %" for w, t in zip(wrong, true, strict=True))
    figure.alt += f" Wrong pixels, row by row: {', '.join(shares)}."
    return figure


def _four_panels(alt: str, panels: Mapping[str, np.ndarray], labels: LabelMap):
    """Two rows of two titled panels, as tall as the last one needs: figure and axes (2, 2)."""
    height, width = next(reversed(panels.values())).shape[:2]
    figure, axes = new_figure(alt, 2, 2, (WIDTH, WIDTH * height / width + 0.6))
    for panel, (title, array) in zip(axes.flat, panels.items(), strict=True):
        _show(panel, np.asarray(array), labels, WIDTH / 2)
        panel.set_title(title)
    return figure, axes


@in_style
def show_overlap(
    image: np.ndarray, true: np.ndarray, predicted: np.ndarray, class_id: int, labels: LabelMap
) -> InlineFigure:
    """How the intersection over union of one class comes about in one image; void pixels are left out.

    image: (h, w, 3), 0..255. true, predicted: (H, W) uint8 class ids.
    """
    name, is_true, found = labels.names[class_id], true == class_id, (predicted == class_id) & (true != VOID)
    areas = dict(zip(OVERLAP, (is_true & found, is_true & ~found, found & ~is_true), strict=True))
    both, union = areas["both"].sum(), (is_true | found).sum()
    panels, overlay = {"image": image}, _grey(image, true.shape)
    for title, area in ((f"ground truth: {name}", is_true), (f"prediction: {name}", found)):
        panels[title] = np.where(area[..., None], labels.palette[class_id], np.uint8(225))
    for part, area in areas.items():
        overlay[area] = OVERLAP[part]
    fraction = f"{both:,} / {union:,} = {both / union:.2f}" if union else "0 / 0: the class is absent"
    title = f"IoU = intersection / union = {fraction}"
    entries = [(f"{part}: {area.sum():,} pixels", OVERLAP[part]) for part, area in areas.items()]
    alt = f"{title}, for {name} in one image. {', '.join(text for text, _ in entries)}."
    figure, _ = _four_panels(alt, panels | {"ground truth and prediction": overlay}, labels)
    figure.suptitle(title)
    figure.set_figheight(figure.get_figheight() + 0.3)
    add_legend(figure, entries)
    return figure


@in_style
def show_confidence(
    image: np.ndarray, true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, labels: LabelMap
) -> InlineFigure:
    """Four panels: image, prediction, confidence, and errors over the grey image; void is void in the prediction, too.

    image: (h, w, 3), 0..255. true, predicted: (H, W) uint8 class ids. confidence: (H, W) of the prediction, 0..1.
    """
    wrong, title, errors = _errors(image, true, predicted, labels)
    parts = (confidence[part] for part in (true == predicted, wrong))
    right, missed = (f"{part.mean():.2f}" if part.size else "no pixel" for part in parts)
    alt = f"Image, prediction, confidence and errors. Mean confidence where right: {right}, where wrong: {missed}."
    predicted = np.where(true == VOID, np.uint8(VOID), predicted)
    panels = {"image": image, "prediction": predicted, "confidence (0..1)": np.zeros_like(image), title: errors}
    figure, axes = _four_panels(alt, panels, labels)
    shown = axes[1, 0].imshow(confidence, cmap="cividis", vmin=0, vmax=1, interpolation="none")
    figure.colorbar(shown, ax=axes[1, 0])
    add_legend(figure, _legend_entries([predicted], labels))
    return figure


# ---- contours and names, for those who can't tell the colours apart ----


def draw_contours(axes, mask: np.ndarray, labels: LabelMap, width: float) -> None:
    """Draw lines between the classes of a mask, and names, into its axes, `width` inches wide.

    mask: (H, W) uint8 class ids. A class is named once if its colour is close to that of another one present, unless
    the name of a larger class is in the way.
    """
    point = mask.shape[1] / (72 * width)  # a point in pixels of the mask
    axes.add_collection(LineCollection(contours_of(mask), colors="white", linewidths=min(0.6, 0.3 / point)))
    taken = []
    for k in hard_to_tell(mask, labels):
        name, spots = labels.names[k], np.argwhere(mask == k)
        half = FONT * point * np.array([0.5, 0.34 * len(name)])  # of the text's height and width
        spot = spots[np.abs(spots - np.median(spots, axis=0)).sum(axis=1).argmin()]
        if len(spots) < 4 * half.prod():  # above the class, which the text would hide
            spot = spot - (2.4 * half[0], 0)
        spot = np.clip(spot, half, mask.shape - half)
        if all((np.abs(spot - other) > half + its_half).any() for other, its_half in taken):
            taken.append((spot, half))
            edge = [withStroke(linewidth=2, foreground="black")]
            axes.text(*spot[::-1], name, color="white", size=FONT, ha="center", va="center", path_effects=edge)


def contours_of(mask: np.ndarray) -> np.ndarray:
    """(N, 2, 2) ends (x, y) of each line between two pixels of different classes; pixels are centred on integers."""
    y, x = np.nonzero(mask[1:] != mask[:-1])
    flat = np.stack([x - 0.5, y + 0.5, x + 0.5, y + 0.5], axis=-1)
    y, x = np.nonzero(mask[:, 1:] != mask[:, :-1])
    upright = np.stack([x + 0.5, y - 0.5, x + 0.5, y + 0.5], axis=-1)
    return np.concatenate([flat, upright]).reshape(-1, 2, 2)


def hard_to_tell(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """Ids of the classes in the mask, large ones first, whose colour the red-green blind confuse with another one."""
    pixels = class_pixels(mask, labels)
    present = np.argsort(-pixels)[: np.count_nonzero(pixels)]
    seen = labels.palette[present] @ np.array([[0.3, 0], [0.59, 0], [0.11, 1]])  # they see brightness and blue
    close = np.linalg.norm(seen[:, None] - seen, axis=-1) < 60
    return present[close.sum(axis=1) > 1]  # each is close to itself
