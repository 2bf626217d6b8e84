"""Pictures of masks beside each other: a class has one colour everywhere, and a legend says which."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ..labels import VOID, LabelMap, class_pixels, colorize
from .figures import WIDTH, InlineFigure, add_legend, in_style, new_figure
from .outlines import draw_outline

ERRORS = {"orange": (255, 140, 0), "cyan": (0, 235, 255), "yellow": (255, 235, 0), "pink": (255, 150, 200)}
# Parts of a union, in colours of Okabe and Ito that everybody tells apart.
OVERLAP = {"both": (240, 228, 66), "only truth": (86, 180, 233), "only prediction": (213, 94, 0)}


@in_style
def show_columns(
    columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap, row_titles: Sequence[str] = (),
    outline: bool | None = None,
) -> InlineFigure:  # fmt: skip
    """Pictures in columns with a title each, and a legend of the classes that occur.

    columns: title -> one array per row: (H, W, 3) picture, 0..255; (H, W) uint8 mask of class ids, or bool errors.
    row_titles: a text beside each row.
    outline: draw a line between the classes of a mask and name those whose colours are hard to tell apart;
        by default where there are at most three columns.
    Raises ValueError for another shape, and for columns of different lengths.
    """
    columns = {title: [_checked(title, picture) for picture in pictures] for title, pictures in columns.items()}
    counts = {title: len(pictures) for title, pictures in columns.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"columns: found {counts} pictures, expected the same number in each, at least one")
    n_rows, first = len(next(iter(columns.values()))), next(iter(columns.values()))[0]
    width = (WIDTH - 0.3 * bool(row_titles)) / len(columns) - 0.08
    height = width * first.shape[0] / first.shape[1]
    size = (WIDTH, n_rows * (height + 0.08) + 0.3)
    figure, axes = new_figure(_columns_alt(columns, labels), n_rows, len(columns), size, squeeze=False)
    outline = len(columns) <= 3 if outline is None else outline
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, picture in enumerate(pictures):
            _show(axes[row, column], picture, labels, width if outline else None)
    for row, title in enumerate(row_titles):
        axes[row, 0].set_ylabel(textwrap.fill(title, max(8, int(10 * height))))
    add_legend(figure, _legend_entries([p for pictures in columns.values() for p in pictures if _is_mask(p)], labels))
    return figure


def _checked(title: str, picture) -> np.ndarray:
    picture = np.asarray(picture)
    if (picture.ndim == 2 and picture.dtype.kind in "bui") or (picture.ndim == 3 and picture.shape[2] == 3):
        return picture
    raise ValueError(
        f"column {title!r}: found {picture.dtype} {picture.shape}, expected a picture (H, W, 3), class ids (H, W) "
        "or bool errors (H, W)"
    )


def _is_mask(picture: np.ndarray) -> bool:
    return picture.ndim == 2 and picture.dtype != bool


def _columns_alt(columns: Mapping[str, Sequence[np.ndarray]], labels: LabelMap) -> str:
    lines = [f"Pictures in {len(next(iter(columns.values())))} row(s) and these columns: {', '.join(columns)}."]
    for title, pictures in columns.items():
        if all(map(_is_mask, pictures)):
            pixels = sum(class_pixels(mask, labels) for mask in pictures)
            most = [k for k in np.argsort(-pixels)[:4] if pixels[k]]
            shares = ", ".join(f"{labels.names[k]} {100 * pixels[k] / pixels.sum():.0f} %" for k in most)
            lines.append(f"{title}: {shares or 'void only'}.")
    return " ".join(lines)


def _show(axes, picture: np.ndarray, labels: LabelMap, outline_width: float | None = None) -> None:
    """One picture, mask or bool errors; outline_width: the panel's width in inches where a mask gets outlines."""
    if picture.dtype == bool:
        picture = np.where(picture[..., None], error_color(labels)[1], 70)
    elif picture.ndim == 2:
        if outline_width:
            draw_outline(axes, picture, labels, outline_width)
        picture = colorize(picture, labels)
    axes.imshow(np.asarray(picture, np.uint8), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.5)


def _legend_entries(masks: Sequence[np.ndarray], labels: LabelMap) -> list[tuple[str, np.ndarray]]:
    """(name, colour) of each class in the masks, and of void."""
    ids = np.flatnonzero(sum(np.bincount(mask.ravel(), minlength=256) for mask in masks))
    return [("void" if k == VOID else labels.names[k], labels.palette[k]) for k in ids]


def show_pairs(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: LabelMap, row_titles: Sequence[str] = (),
    outline: bool | None = None,
) -> InlineFigure:  # fmt: skip
    """Rows of picture, mask and the mask laid over the picture: an edge that does not fit is seen at once.

    A mask that is smaller than its picture is enlarged by nearest neighbour.
    """
    masks = [enlarge(mask, image.shape[:2]) for image, mask in zip(images, masks, strict=True)]
    overlays = [np.asarray(i) // 2 + colorize(m, labels) // 2 for i, m in zip(images, masks, strict=True)]
    return show_columns({"image": images, "mask": masks, "mask over image": overlays}, labels, row_titles, outline)


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) ids -> (*size) ids by nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def error_color(labels: LabelMap) -> tuple[str, tuple[int, int, int]]:
    """Name and (red, green, blue), 0..255, of a colour that is far from every class's and from void's."""
    used = np.vstack([labels.palette[: labels.n_classes], labels.palette[VOID]]).astype(int)
    return max(ERRORS.items(), key=lambda item: np.linalg.norm(used - item[1], axis=1).min())


def _grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) picture 0..255 -> (*size, 3) uint8, grey and darkened, so that colours laid over it stand out."""
    grey = Image.fromarray(np.asarray(image, np.uint8)).convert("L").resize(size[::-1])
    return np.repeat(np.asarray(grey)[..., None] // 5 * 3, 3, axis=2)


def _errors(image: np.ndarray, wrong: np.ndarray, labels: LabelMap) -> np.ndarray:
    """(H, W, 3) uint8: the wrong pixels (H, W) bool in `error_color`, over the grey picture."""
    return np.where(wrong[..., None], np.uint8(error_color(labels)[1]), _grey(image, wrong.shape))


def show_predictions(
    images: Sequence[np.ndarray], true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], labels: LabelMap,
    row_titles: Sequence[str] = (), outline: bool | None = None,
) -> InlineFigure:  # fmt: skip
    """Rows of image, truth, prediction and errors over the grey picture; void never counts as wrong."""
    wrong = [(t != p) & (t != VOID) for t, p in zip(true, predicted, strict=True)]
    errors = [_errors(image, w, labels) for image, w in zip(images, wrong, strict=True)]
    columns = {"image": images, "truth": true, "prediction": predicted, f"errors ({error_color(labels)[0]})": errors}
    figure = show_columns(columns, labels, row_titles, outline)
    shares = (f"{100 * w.sum() / max(1, (t != VOID).sum()):.1f} %" for w, t in zip(wrong, true, strict=True))
    figure.alt += f" Wrong pixels, row by row: {', '.join(shares)}."
    return figure


def _four_panels(alt: str, panels: Mapping[str, np.ndarray], labels: LabelMap, **outline):
    """Two rows of two titled pictures, as tall as the last one needs: figure and axes (2, 2)."""
    height, width = next(reversed(panels.values())).shape[:2]
    figure, axes = new_figure(alt, 2, 2, (WIDTH, WIDTH * height / width + 0.6))
    for panel, (title, picture) in zip(axes.flat, panels.items(), strict=True):
        _show(panel, np.asarray(picture), labels, **outline)
        panel.set_title(title)
    return figure, axes


@in_style
def show_overlap(
    image: np.ndarray, true: np.ndarray, predicted: np.ndarray, class_id: int, labels: LabelMap
) -> InlineFigure:
    """How the intersection over union of one class comes about on one picture; void pixels are left out.

    image: (h, w, 3), 0..255. true, predicted: (H, W) uint8 class ids.
    """
    name, truth, found = labels.names[class_id], true == class_id, (predicted == class_id) & (true != VOID)
    areas = dict(zip(OVERLAP, (truth & found, truth & ~found, found & ~truth), strict=True))
    both, union = areas["both"].sum(), (truth | found).sum()
    overlay = _grey(image, true.shape)
    for part, area in areas.items():
        overlay[area] = OVERLAP[part]
    alone = (np.where(area[..., None], labels.palette[class_id], np.uint8(225)) for area in (truth, found))
    panels = dict(zip(("image", f"truth: {name}", f"prediction: {name}"), (image, *alone), strict=True))
    fraction = f"{both:,} / {union:,} = {both / union:.2f}" if union else "0 / 0: the class is absent"
    title = f"IoU = intersection / union = {fraction}"
    entries = [(f"{part}: {area.sum():,} pixels", OVERLAP[part]) for part, area in areas.items()]
    alt = f"{title}, for {name} on one picture. {', '.join(text for text, _ in entries)}."
    figure, _ = _four_panels(alt, panels | {"truth and prediction": overlay}, labels)
    figure.suptitle(title)
    figure.set_figheight(figure.get_figheight() + 0.3)
    add_legend(figure, entries)
    return figure


@in_style
def show_confidence(
    image: np.ndarray, true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, labels: LabelMap
) -> InlineFigure:
    """Four panels: image, prediction, confidence, and errors over the grey picture; void never counts as wrong.

    image: (h, w, 3), 0..255. true, predicted: (H, W) uint8 class ids. confidence: (H, W) of the prediction, 0..1.
    """
    right, wrong = true == predicted, (true != predicted) & (true != VOID)
    title, errors = f"errors ({error_color(labels)[0]})", _errors(image, wrong, labels)
    right, missed = (f"{confidence[part].mean():.2f}" if part.any() else "no pixel" for part in (right, wrong))
    alt = f"Image, prediction, confidence and errors. Mean confidence where right: {right}, where wrong: {missed}."
    panels = {"image": image, "prediction": predicted, "confidence (0..1)": np.zeros_like(image), title: errors}
    figure, axes = _four_panels(alt, panels, labels, outline_width=WIDTH / 2)
    shown = axes[1, 0].imshow(confidence, cmap="cividis", vmin=0, vmax=1, interpolation="none")
    figure.colorbar(shown, ax=axes[1, 0])
    add_legend(figure, _legend_entries([predicted], labels))
    return figure
