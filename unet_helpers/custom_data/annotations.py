"""Masks given as outlines: the JSON files of LabelMe and COCO, and which image each outline belongs to."""

import functools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..images import InvalidFile
from ..labels import CONTROL, VOID
from ..naming import counted
from ..storage import read_regular
from .class_lists import BACKGROUND, LABELME_NAMES, VOID_NAME
from .matching import SPLIT_NAMES, normalize
from .report import Problems

MAX_JSON_BYTES = 1 << 30  # COCO's largest file has half of that; in memory, Python needs ten times as much
MAX_COORDINATE = 1e6  # pixels
SPLIT_WORDS = {word: split for split, words in SPLIT_NAMES.items() for word in words}
NO_SHAPE = "a shape is not supported, expected one of polygon, rectangle, circle with an area; draw it as a polygon"
NO_COCO = "it is no whole COCO file; export it again"
NO_POLYGONS = "expected polygons, each of x and y of three or more points, no run lengths (RLE, iscrowd), no box alone"
NO_POLYGONS += "; export it again as such, or outline the object in the labelling tool"
UNCLEAR = "it is not clear which outlines of this name belong to it; give each folder of images a file of its own, such"
UNCLEAR += " as instances_train.json and instances_val.json, and keep one of several files, of COCO's that of instances"


class Outlines(NamedTuple):
    path: Path  # of the JSON file
    size: tuple[int, int]  # (height, width) of the one image whose outlines these are
    # (label, whether it is a circle, points (x, y): corners of a polygon, or two of the square around the circle)
    shapes: tuple[tuple[str, bool, list[tuple[float, float]]], ...]


def draw(outlines: Outlines, names: tuple[str, ...]) -> Image.Image:
    """(H, W) mask of 8 bits: class ids in the order of the names. What no outline covers is the class "background", or
    VOID = 255 where no class has this name. Raises InvalidFile for a label that is none of the names."""
    background = next((k for k, name in enumerate(names) if name.lower() == BACKGROUND), VOID)
    ids = {BACKGROUND: background} | {name: k for k, name in enumerate(names)}
    mask = Image.new("L", outlines.size[::-1], background)
    pen = ImageDraw.Draw(mask)
    for label, is_circle, points in outlines.shapes:
        k = VOID if label.lower() == VOID_NAME else ids.get(label)
        if k is None:
            raise InvalidFile(f"expected the labels {', '.join(names)}; add others to the list of classes", repr(label))
        (pen.ellipse if is_circle else pen.polygon)(points, fill=k, outline=k)
    return mask


def read_labelme(path: Path, content: dict) -> Outlines:
    """The outlines of a LabelMe file. Raises InvalidFile if anything is wrong."""
    shapes = []
    for number, shape in enumerate(content["shapes"], 1):
        with _reading(f"shape {number}", "a shape lacks label or points; save it again with LabelMe"):
            label, kind = _text(shape["label"]), shape.get("shape_type") or "polygon"
            points = _points(*zip(*shape["points"], strict=True))
            if kind == "circle" and len(points) == 2:  # its centre and a point on it
                (x, y), (x1, y1) = points
                radius = ((x1 - x) ** 2 + (y1 - y) ** 2) ** 0.5
                points = [(x - radius, y - radius), (x + radius, y + radius)]
            elif kind == "rectangle" and len(points) == 2:  # two corners
                (x, y), (x1, y1) = points
                points = [(x, y), (x1, y), (x1, y1), (x, y1)]
            elif kind not in ("polygon", "rectangle", "rotation") or len(points) < 3:  # the last: of X-AnyLabeling
                raise InvalidFile(NO_SHAPE, f"shape {number}, {label!r}: {kind!r} of {counted(len(points), 'point')}")
            shapes.append((LABELME_NAMES.get(label, label), kind == "circle", points))
    return Outlines(path, _size(content.get("imageHeight"), content.get("imageWidth")), tuple(shapes))


class ListedImage(NamedTuple):
    path: Path  # of the COCO or LabelMe file
    stem: str  # of its file_name, or of the LabelMe file
    read: Callable[[], Outlines]  # raises InvalidFile if anything is wrong


def open_coco(path: Path, content: dict) -> tuple[list[str], list[ListedImage]]:
    """(category names in the order of their ids, images) of a COCO file. Raises InvalidFile if it is damaged."""
    with _reading("categories", NO_COCO):
        listed = sorted(content.get("categories", []), key=lambda each: each["id"])
        categories = {each["id"]: _text(each["name"]) for each in listed}
        if len(categories) < len(listed):
            raise InvalidFile("two categories have the same id; export it again")
    images: dict[int | str, tuple[PurePosixPath, tuple, list[dict]]] = {}
    with _reading("images", NO_COCO):
        for image in content["images"]:
            name = PurePosixPath(_text(image["file_name"]).replace("\\", "/"))
            twin, *_ = images.setdefault(image["id"], (name, (image.get("height"), image.get("width")), []))
            if twin != name:
                raise InvalidFile("two images have the same id; export it again", f"{twin} and {name}")
    with _reading("annotations", NO_COCO):
        for each in content["annotations"]:
            images[each["image_id"]][2].append(each)
    read = functools.partial(read_coco, path, categories)
    return [*categories.values()], [
        ListedImage(path, name.stem, functools.partial(read, size, objects)) for name, size, objects in images.values()
    ]


def read_coco(path: Path, categories: Mapping[int | str, str], size: tuple, objects: Sequence[dict]) -> Outlines:
    """The outlines of an image in a COCO file: its height and width, and its annotations, as they are there."""
    shapes = []
    for each in objects:
        with _reading("annotations", NO_COCO):
            label, polygons = categories[each["category_id"]], each.get("segmentation")
            is_list = isinstance(polygons, list) and polygons and not each.get("iscrowd")
            if not is_list or any(len(numbers) % 2 or len(numbers) < 6 for numbers in polygons):
                raise InvalidFile(NO_POLYGONS, f"annotation {each.get('id')}, {label!r}")
            shapes += [(label, False, _points(numbers[::2], numbers[1::2])) for numbers in polygons]
    return Outlines(path, _size(*size), tuple(shapes))


class Annotations:
    """The JSON files of LabelMe and COCO in a data set. Each is read once, for several splits may share one."""

    def __init__(self, root: Path, folders: Mapping[str | None, tuple[Path, Path, dict]], errors: Problems):
        self.root, self.errors = root, errors
        self.folders = folders  # {split: (folder of images, of masks, {normalized stem: image})}
        self.contents: dict[Path, list[ListedImage] | None] = {}  # None: invalid, and among the errors
        self.coco_names: dict[str, None] = {}  # in the order of their ids
        self.labelme_names: set[str] = set()

    def classes(self) -> tuple[str, ...]:
        """The names in all files that were read, background first; () if there are none."""
        names = [*self.coco_names, *sorted(self.labelme_names)]
        return tuple(name for name in dict.fromkeys([BACKGROUND, *names]) if name.lower() != VOID_NAME and names)

    def find(self, split: str | None) -> dict[str, Outlines | None]:
        """{normalized stem: outlines, None if they are invalid} for a split's folder of images."""
        images = self.folders[split][2]
        found: dict[str, Outlines | None] = {}
        candidates: dict[str, list[ListedImage]] = defaultdict(list)
        for path in self.list_files(split):
            listed = self._open(path) if split is None or self._split_of(path) in (None, split) else ()
            if listed is None:
                found |= dict.fromkeys({normalize(path.stem)} & images.keys() or images)
            for image in listed or ():
                candidates[normalize(image.stem)].append(image)
        for stem, listed in candidates.items():
            if stem in images and stem not in found:
                found |= self._read(split, stem, listed)
        return found

    def _read(self, split: str | None, stem: str, listed: list[ListedImage]) -> dict[str, Outlines | None]:
        """The outlines of an image, given those that are listed for its stem; None if they are invalid or unclear."""
        images, image = self.folders[split][2], listed[0]
        is_shared = self._split_of(image.path) is None and sum(stem in there for *_, there in self.folders.values()) > 1
        if listed[1:] or is_shared:
            self.errors.add(UNCLEAR, images[stem], " and ".join(dict.fromkeys(each.path.name for each in listed)))
            return {stem: None}
        try:
            return {stem: image.read()}
        except InvalidFile as error:
            self._refuse(image.path, error)
            return dict.fromkeys(images)

    def _split_of(self, path: Path) -> str | None:
        """The split whose images a file is for: the one that its folders name, else its own name; None: any."""
        for text in (path.parent.relative_to(self.root), path.stem):
            splits = {SPLIT_WORDS.get(word) for word in re.findall("[a-z]+", str(text).lower())} - {None}
            if len(splits) == 1:
                return splits.pop()
        return None

    def list_files(self, split: str | None) -> Iterator[Path]:
        """All JSON files that may hold outlines for a split's folder of images."""
        image_dir, mask_dir, _ = self.folders[split]
        places = (mask_dir, image_dir, image_dir.parent, image_dir.parent / "annotations")
        for folder in dict.fromkeys((*places, self.root, self.root / "annotations")):
            if os.path.isdir(folder) and folder.is_relative_to(self.root):
                yield from sorted(folder.glob("*.[jJ][sS][oO][nN]"))

    def _open(self, path: Path) -> list[ListedImage] | None:
        """The images in a file, [] if it is not used, None if it is invalid."""
        if path in self.contents:
            return self.contents[path]
        self.contents[path] = []
        try:
            content = _load_json(path)
            lists = {key: value for key, value in content.items() if isinstance(value, list)}
            objects = lists.get("annotations") if "images" in lists else None
            # COCO also has files of captions, and of its own masks.
            if objects == [] or any("category_id" in each for each in objects or () if isinstance(each, dict)):
                names, self.contents[path] = open_coco(path, content)
                self.coco_names |= dict.fromkeys(names)
            elif "shapes" in lists and any(path.parent in folders for folders in self.folders.values()):
                outlines = read_labelme(path, content)
                self.contents[path] = [ListedImage(path, path.stem, lambda: outlines)]
                self.labelme_names |= {label for label, _, _ in outlines.shapes}
        except InvalidFile as error:
            self._refuse(path, error)
        return self.contents[path]

    def _refuse(self, path: Path, error: InvalidFile) -> None:
        self.errors.add(str(error), path, error.found)
        self.contents[path] = None


def _load_json(path: Path) -> dict:
    """The object in a JSON file, {} if it holds something else. Raises InvalidFile if it can't be read."""
    try:
        content = json.loads(read_regular(path, MAX_JSON_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise InvalidFile("it can't be read; make it readable or get it again", error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise InvalidFile("it is no JSON; export it again from the labelling tool", str(error)) from None
    return content if isinstance(content, dict) else {}


def _text(name) -> str:
    """Raises ValueError for what is no text or number, or holds control characters."""
    if not isinstance(name, (str, int)) or CONTROL.search(str(name)):
        raise ValueError(f"found {ascii(name)[:80]}, expected plain text")
    return str(name)


def _size(height, width) -> tuple[int, int]:
    """(height, width) as whole numbers; some programs write 48.0. Raises InvalidFile for anything else."""
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side for side in (height, width)]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise InvalidFile("it lacks the image's size, expected two whole numbers; save it again", f"{height} x {width}")
    return tuple(sides)


def _points(xs, ys) -> list[tuple[float, float]]:
    """Pairs (x, y). Raises ValueError for what is not finite or far from any image, or where one is missing."""
    points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    if not all(abs(side) < MAX_COORDINATE for point in points for side in point):
        raise ValueError("a point is not finite, or too far away")
    return points


@contextmanager
def _reading(part: str, sentence: str) -> Iterator[None]:
    """Raises InvalidFile with this sentence if the block fails, as it may in many ways where JSON is damaged."""
    try:
        yield
    except InvalidFile:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InvalidFile(sentence, f"{part}: {type(error).__name__}: {error}") from None
