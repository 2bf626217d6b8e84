"""Images and masks beside each other: each class in its colour, with a legend, and contours for the colour-blind."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from PIL import Image

from ..images import decode_image, decode_mask
from ..labels import VOID, LabelMap, class_pixels, colorize
from .figures import FONT, WIDTH, InlineFigure, add_legend, in_style, new_figure, shorten

ERRORS = {"orange": (255, 140, 0), "cyan": (0, 235, 255), "yellow": (255, 235, 0), "pink": (255, 150, 200)}
# Parts of a union, in colours of Okabe and Ito.
OVERLAP = {"both": (240, 228, 66), "only ground truth": (86, 180, 233), "only prediction": (213, 94, 0)}
IN_LINE = 2  # images: three would be narrower than 150 pixels on a phone


@in_style
def show_columns(
    columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap, row_titles: Sequence[str] = ()
) -> InlineFigure:
    """Images and masks, two in a line, with a title each, and a legend of the classes that occur. Masks get contours,
    and names of the classes whose colours are hard to tell apart.
    columns: title -> one array per row: (H, W, 3) image, 0..255; (H, W) uint8 mask of class ids, or bool errors.
    row_titles: in front of the title of each row's first image. Raises ValueError for columns of different lengths."""
    columns = {title: [np.asarray(array) for array in arrays] for title, arrays in columns.items()}
    rows, n_across = list(zip(*columns.values(), strict=True)), min(IN_LINE, len(columns))
    width, lines = WIDTH / n_across - 0.08, []  # a line: pairs of title and array
    for row, row_title in zip_longest(rows, row_titles, fillvalue=""):
        titles = [f"{row_title}, {title}" if row_title and not i else title for i, title in enumerate(columns)]
        titled = [(fill(title, int(9.5 * width)), array) for title, array in zip(titles, row, strict=True)]
        lines += [titled[i : i + n_across] for i in range(0, len(titled), n_across)]
    heights = [width * max(array.shape[0] / array.shape[1] for _, array in line) for line in lines]
    text = sum(0.14 + 0.22 * max(title.count("\n") + 1 for title, _ in line) for line in lines)
    size, ratios = (WIDTH, sum(heights) + text), {"height_ratios": heights, "squeeze": False}
    figure, axes = new_figure(_columns_alt(columns, labels), len(lines), n_across, size, **ratios)
    for panels, line in zip(axes, lines, strict=True):
        for panel, titled in zip_longest(panels, line):
            if titled is None:
                panel.set_axis_off()
                continue
            _show(panel, titled[1], labels, width)
            panel.set_title(titled[0])
    ids = np.flatnonzero(sum(np.bincount(mask.ravel(), minlength=256) for row in rows for mask in _masks(row)))
    add_legend(figure, [("void" if k == VOID else labels.names[k], labels.palette[k]) for k in ids])
    return figure


def _masks(arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [array for array in arrays if array.ndim == 2 and array.dtype != bool]


def _columns_alt(columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap) -> str:
    alt = f"Images in these columns: {', '.join(columns)}."
    for title, arrays in columns.items():
        pixels = sum(class_pixels(mask, labels) for mask in _masks(arrays))
        if np.any(pixels):
            most = [k for k in np.argsort(-pixels)[:4] if pixels[k]]
            alt += f" {title}: {', '.join(f'{labels.names[k]} {pixels[k] / pixels.sum():.0%}' for k in most)}."
    return alt


def _show(axes, array: np.ndarray, labels: LabelMap, width: float) -> None:
    """An image, mask or bool errors in a panel of so many inches."""
    if array.dtype == bool:
        array = np.where(array[..., None], error_color(labels)[1], 70)
    elif array.ndim == 2:
        step = 1 + array.shape[1] // 1000  # more lines than a figure has pixels take seconds
        array = array[::step, ::step]
        draw_contours(axes, array, labels, width)
        array = colorize(array, labels)
    axes.imshow(np.asarray(array, np.uint8), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.5)


def show_pairs(
    images: Sequence[np.ndarray | str | Path], masks: Sequence[np.ndarray | str | Path], labels: LabelMap,
    row_titles: Sequence[str] = (),
) -> InlineFigure:  # fmt: skip
    """Rows of image and mask; of a single pair, also the mask laid over the image: do their borders coincide?
    images, masks: (H, W, 3) and (H, W) alike, or their files; then a row's title is, unless given, the file's stem."""
    row_titles = row_titles or [Path(i).stem if isinstance(i, (str, Path)) else "" for i in images]
    images = [decode_image(i) if isinstance(i, (str, Path)) else np.asarray(i) for i in images]
    masks = [decode_mask(m, labels)[..., 0] if isinstance(m, (str, Path)) else np.asarray(m) for m in masks]
    columns = {"image": images, "mask": masks}
    if len(images) == 1:
        columns["mask over image"] = [images[0] // 2 + colorize(masks[0], labels) // 2]
    return show_columns(columns, labels, row_titles)


def error_color(labels: LabelMap) -> tuple[str, tuple[int, int, int]]:
    """Name and (red, green, blue), 0..255, of a colour that is far from every class's and from void's."""
    used = labels.palette[[*range(labels.n_classes), VOID]].astype(int)
    return max(ERRORS.items(), key=lambda item: np.linalg.norm(used - item[1], axis=1).min())


def _grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) image 0..255 -> (*size, 3) uint8, grey and darkened, so that colours laid over it stand out."""
    grey = Image.fromarray(np.asarray(image, np.uint8)).convert("L").resize(size[::-1])
    return np.repeat(np.asarray(grey)[..., None] // 5 * 3, 3, axis=2)


def show_predictions(
    images: Sequence[np.ndarray], true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], labels: LabelMap,
    row_titles: Sequence[str] = (),
) -> InlineFigure:  # fmt: skip
    """Rows of image, ground truth, prediction and errors over the grey image; void is void in the prediction, too."""
    wrong, (name, color) = [(t != p) & (t != VOID) for t, p in zip(true, predicted, strict=True)], error_color(labels)
    errors = [np.where(w[..., None], np.uint8(color), _grey(i, w.shape)) for i, w in zip(images, wrong, strict=True)]
    predicted = [np.where(t == VOID, np.uint8(VOID), p) for t, p in zip(true, predicted, strict=True)]
    columns = {"image": images, "ground truth": true, "prediction": predicted, f"errors ({name})": errors}
    figure = show_columns(columns, labels, row_titles)
    scored = [np.count_nonzero(t != VOID) for t in true]
    shares = (f"{100 * w.sum() / n:.1f} %" if n else "all void" for w, n in zip(wrong, scored, strict=True))
    figure.alt += f" Wrong pixels, row by row: {', '.join(shares)}."
    return figure


@in_style
def show_overlap(
    image: np.ndarray, true: np.ndarray, predicted: np.ndarray, class_id: int, labels: LabelMap
) -> InlineFigure:
    """How the intersection over union of one class comes about in one image; void pixels are left out.
    image: (h, w, 3), 0..255. true, predicted: (H, W) uint8 class ids."""
    name, is_true, found = labels.names[class_id], true == class_id, (predicted == class_id) & (true != VOID)
    areas = dict(zip(OVERLAP, (is_true & found, is_true & ~found, found & ~is_true), strict=True))
    both, union = areas["both"].sum(), (is_true | found).sum()
    panels, overlay = {"image": [image]}, _grey(image, true.shape)
    for title, area in ((f"ground truth: {name}", is_true), (f"prediction: {name}", found)):
        panels[title] = [np.where(area[..., None], labels.palette[class_id], np.uint8(225))]
    for part, area in areas.items():
        overlay[area] = OVERLAP[part]
    fraction = f"{both:,} / {union:,} = {both / union:.2f}" if union else "0 / 0: the class is absent"
    title = f"IoU = intersection / union = {fraction}"
    entries = [(f"{part}: {area.sum():,} pixels", OVERLAP[part]) for part, area in areas.items()]
    figure = show_columns(panels | {"ground truth and prediction": [overlay]}, labels)
    figure.alt = f"{title}, for {name} in one image. {', '.join(text for text, _ in entries)}."
    figure.suptitle(title)
    figure.set_figheight(figure.get_figheight() + 0.3)
    add_legend(figure, entries)
    return figure


def draw_contours(axes, mask: np.ndarray, labels: LabelMap, width: float) -> None:
    """Draw lines between the classes of a mask (H, W), and names, into its axes, `width` inches wide. A class is named
    if the colour-blind confuse it with another: on it, or beside it with a line to it, where this covers little."""
    point = mask.shape[1] / (72 * width)  # a point in pixels of the mask
    axes.add_collection(LineCollection(contours_of(mask), colors="white", linewidths=min(0.6, 0.3 / point)))
    share = np.pad((1 / np.maximum(np.bincount(mask.ravel(), minlength=256), 1))[mask], ((1, 0), (1, 0)))
    share, taken = share.cumsum(0).cumsum(1), []
    for k in hard_to_tell(mask, labels)[::-1]:  # the smallest first: it has the fewest places
        name, spots = shorten(labels.names[k], 20), np.argwhere(mask == k)
        half = FONT * point * np.array([0.6, 0.33 * len(name) + 0.2])  # of the text's height and width
        ends = np.minimum(half, np.divide(mask.shape, 2)), np.maximum(mask.shape - half, np.divide(mask.shape, 2))
        places = np.stack(np.meshgrid(*np.linspace(*ends, 40).T, indexing="ij"), -1).reshape(-1, 2)
        (top, left), (bottom, right) = (np.clip(places + s * half, 0, mask.shape).astype(int).T for s in (-1, 1))
        covered = share[bottom, right] - share[top, right] - share[bottom, left] + share[top, left]
        gaps = np.maximum(np.abs(places[:, None] - spots[:: 1 + len(spots) // 300]) - half, 0)
        away, middle = np.linalg.norm(gaps, axis=-1).min(1), np.linalg.norm(places - np.median(spots, axis=0), axis=-1)
        cost = 6 * covered**1.3 + (away + 0.1 * middle) / half[0] / 4  # a tenth of a large class may be covered
        free = [all((np.abs(place - other) > half + its).any() for other, its in taken) for place in places]
        if any(free):
            place = places[np.where(free, cost, np.inf).argmin()]
            taken.append((place, half))
            nearest = spots[np.linalg.norm(spots - place, axis=1).argmin()]
            edge, line = [withStroke(linewidth=2, foreground="black")], {"arrowstyle": "-", "color": "white"}
            options = {"arrowprops": line | {"path_effects": edge}} if mask[tuple(place.astype(int))] != k else {}
            text = {"color": "white", "ha": "center", "va": "center", "path_effects": edge, "in_layout": False}
            axes.annotate(name, nearest[::-1], place[::-1], **text, **options)


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
    seen = labels.palette[present] @ np.array([[1, 0], [1.4, 0], [0.1, 1]])  # they see brightness and blue
    close = np.linalg.norm(seen[:, None] - seen, axis=-1) < 66
    return present[close.sum(axis=1) > 1]  # each is close to itself
