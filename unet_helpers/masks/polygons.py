"""Masks given as outlines, drawn by Pillow: LabelMe's JSON, one for each picture, read here; COCO's: see `coco`.

What has no area (points, lines) is refused by its name, as is what is no outline: LabelMe's bitmaps ("mask"), COCO's
run lengths (RLE, "iscrowd"). Neither format has holes: the hole is drawn by an outline of the class inside, which comes
later in the file, for what comes later covers what came before.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..files import read_regular
from ..labels import CONTROL, VOID
from .classes import BACKGROUND, LABELME_NAMES, VOID_NAME
from .reading import Mask
from .report import Unfit

MAX_BYTES = 1 << 30  # of a JSON file; COCO's largest has half of that, and Python makes ten times as much of it
MAX_SIDE = 1e6  # of what is drawn, in pixels
LABELME_KINDS = {None: "polygon", "": "polygon", "rotation": "polygon"}  # the last: a turned box, of X-AnyLabeling
SHAPES: dict[str, tuple[Callable, int]] = {  # how it is drawn, and of how many points at least
    "polygon": (lambda draw, points, k: draw.polygon(points, fill=k, outline=k), 3),
    "rectangle": (lambda draw, points, k: draw.rectangle(_box(points), fill=k), 2),
    "circle": (lambda draw, points, k: draw.ellipse(_circle(points), fill=k), 2),
}


class Drawing(NamedTuple):
    """The outlines of one picture: size (height, width); shapes (label; key of SHAPES; points).
    of_many: whether the file has those of other pictures, too.
    """

    path: Path
    size: tuple[int, int]
    shapes: tuple[tuple[str, str, list[tuple[float, float]]], ...]
    of_many: bool = False


def read_json(path: Path):
    """Content of a JSON file. Raises Unfit if it can't be read."""
    try:
        return json.loads(read_regular(path, MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise Unfit("it can't be read; make it readable or get it again", error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise Unfit("it is no JSON; export it again from the labelling tool", str(error)) from None


def is_labelme(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(path: Path, content: dict) -> Drawing:
    """The outlines of a LabelMe file. Raises Unfit if it holds anything else, or lacks the picture's size."""
    shapes = []
    for number, shape in enumerate(content["shapes"], 1):
        field = "label"
        try:
            label, field = as_text(shape["label"]), "shape_type"
            kind = LABELME_KINDS.get(shape.get(field), shape.get(field))
            field = "points"
            points = as_points(*zip(*shape["points"], strict=True))
            if kind == "rectangle" and not _is_upright(points):
                kind = "polygon"
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            found = f"shape {number}, {field}: {error}"
            raise Unfit("a shape lacks label or points; save it again with LabelMe", found) from None
        if kind not in SHAPES or len(points) < SHAPES[kind][1]:
            raise Unfit(
                f"a shape is not supported, expected one of {', '.join(SHAPES)} with an area; draw it as a polygon",
                f"shape {number}, {label!r}: {kind!r} of {len(points)} points",
            )
        shapes.append((LABELME_NAMES.get(label, label), kind, points))
    return Drawing(path, as_size(content.get("imageHeight"), content.get("imageWidth")), tuple(shapes))


def draw(drawing: Drawing, names: tuple[str, ...]) -> Image.Image:
    """(H, W) mask of a drawing, 8 bits: class ids in the order of the names, VOID = 255.

    What no outline covers is the class "background", or void where no class has this name.
    Raises Unfit for a label that is none of the names.
    """
    background = next((k for k, name in enumerate(names) if name.lower() == BACKGROUND), VOID)
    ids = {BACKGROUND: background} | {name: k for k, name in enumerate(names)}
    ids |= {label: VOID for label, _, _ in drawing.shapes if label.lower() == VOID_NAME}
    unknown = [label for label, _, _ in drawing.shapes if label not in ids]
    if unknown:
        raise Unfit(f"expected the labels {', '.join(names)}; add others to the list of classes", repr(unknown[0]))
    mask = Image.new("L", drawing.size[::-1], background)
    pen = ImageDraw.Draw(mask)
    for label, kind, points in drawing.shapes:
        SHAPES[kind][0](pen, points, ids[label])
    return mask


def examine_drawing(drawing: Drawing, names: tuple[str, ...]) -> Mask:
    """What the drawn mask holds. Raises Unfit as `draw` does."""
    counts = {k: n for k, n in enumerate(draw(drawing, names).histogram()) if n}
    return Mask("outlines in JSON", drawing.size, "grey", counts, {}, False)


def as_text(name) -> str:
    """A name. Raises ValueError for what is no text or number, or holds control characters."""
    if not isinstance(name, (str, int)) or CONTROL.search(str(name)):
        raise ValueError(f"found {ascii(name)[:80]}, expected plain text")
    return str(name)


def as_size(height, width) -> tuple[int, int]:
    """(height, width) of a picture as whole numbers; some programs write 48.0. Raises Unfit for anything else."""
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side for side in (height, width)]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        sentence = "it lacks the picture's size, expected two whole numbers; save it again"
        raise Unfit(sentence, f"{height} x {width}") from None
    return tuple(sides)


def as_points(xs, ys) -> list[tuple[float, float]]:
    """Pairs (x, y). Raises ValueError for what is not finite or far from any picture, or where one is missing."""
    points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    if not all(abs(side) < MAX_SIDE for point in points for side in point):
        raise ValueError("a point is not finite, or too far away")
    return points


def _box(points: list[tuple[float, float]]) -> list[float]:
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def _is_upright(points: list[tuple[float, float]]) -> bool:
    """Whether all points are corners of one box: two of them, or, as some programs write it, four."""
    left, top, right, bottom = _box(points)
    return all(x in (left, right) and y in (top, bottom) for x, y in points)


def _circle(points: list[tuple[float, float]]) -> list[float]:
    """LabelMe's circle: its centre and a point on it."""
    (x, y), (x1, y1) = points[:2]
    radius = ((x1 - x) ** 2 + (y1 - y) ** 2) ** 0.5
    return [x - radius, y - radius, x + radius, y + radius]
