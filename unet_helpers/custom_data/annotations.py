"""Masks given as outlines: the JSON files of LabelMe and COCO, and which image each outline belongs to."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..images import InvalidFile, MaskInfo
from ..labels import CONTROL, VOID
from ..storage import read_regular
from .class_lists import BACKGROUND, LABELME_NAMES, VOID_NAME
from .matching import normalize
from .report import Problems

MAX_BYTES = 1 << 30  # of a JSON file; COCO's largest has half of that, and Python makes ten times as much of it
MAX_SIDE = 1e6  # of what is drawn, in pixels
LABELME_KINDS = {None: "polygon", "": "polygon", "rotation": "polygon"}  # the last: a turned box, of X-AnyLabeling
SHAPES: dict[str, tuple[Callable, int]] = {  # how it is drawn, and of how many points at least
    "polygon": (lambda draw, points, k: draw.polygon(points, fill=k, outline=k), 3),
    "rectangle": (lambda draw, points, k: draw.rectangle(_box(points), fill=k), 2),
    "circle": (lambda draw, points, k: draw.ellipse(_circle(points), fill=k), 2),
}


class Outlines(NamedTuple):
    """The outlines of one picture: size (height, width); shapes (label; key of SHAPES; points).
    of_many: whether the file has those of other pictures, too.
    """

    path: Path
    size: tuple[int, int]
    shapes: tuple[tuple[str, str, list[tuple[float, float]]], ...]
    of_many: bool = False


def read_json(path: Path):
    """Content of a JSON file. Raises InvalidFile if it can't be read."""
    try:
        return json.loads(read_regular(path, MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise InvalidFile("it can't be read; make it readable or get it again", error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise InvalidFile("it is no JSON; export it again from the labelling tool", str(error)) from None


def is_labelme(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(path: Path, content: dict) -> Outlines:
    """The outlines of a LabelMe file. Raises InvalidFile if it holds anything else, or lacks the picture's size."""
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
            raise InvalidFile("a shape lacks label or points; save it again with LabelMe", found) from None
        if kind not in SHAPES or len(points) < SHAPES[kind][1]:
            raise InvalidFile(
                f"a shape is not supported, expected one of {', '.join(SHAPES)} with an area; draw it as a polygon",
                f"shape {number}, {label!r}: {kind!r} of {len(points)} points",
            )
        shapes.append((LABELME_NAMES.get(label, label), kind, points))
    return Outlines(path, as_size(content.get("imageHeight"), content.get("imageWidth")), tuple(shapes))


def draw(drawing: Outlines, names: tuple[str, ...]) -> Image.Image:
    """(H, W) mask of a drawing, 8 bits: class ids in the order of the names, VOID = 255.

    What no outline covers is the class "background", or void where no class has this name.
    Raises InvalidFile for a label that is none of the names.
    """
    background = next((k for k, name in enumerate(names) if name.lower() == BACKGROUND), VOID)
    ids = {BACKGROUND: background} | {name: k for k, name in enumerate(names)}
    ids |= {label: VOID for label, _, _ in drawing.shapes if label.lower() == VOID_NAME}
    unknown = [label for label, _, _ in drawing.shapes if label not in ids]
    if unknown:
        expected = f"expected the labels {', '.join(names)}; add others to the list of classes"
        raise InvalidFile(expected, repr(unknown[0]))
    mask = Image.new("L", drawing.size[::-1], background)
    pen = ImageDraw.Draw(mask)
    for label, kind, points in drawing.shapes:
        SHAPES[kind][0](pen, points, ids[label])
    return mask


def examine_drawing(drawing: Outlines, names: tuple[str, ...]) -> MaskInfo:
    """What the drawn mask holds. Raises InvalidFile as `draw` does."""
    counts = {k: n for k, n in enumerate(draw(drawing, names).histogram()) if n}
    return MaskInfo("outlines in JSON", drawing.size, "grey", counts, {}, False)


def as_text(name) -> str:
    """A name. Raises ValueError for what is no text or number, or holds control characters."""
    if not isinstance(name, (str, int)) or CONTROL.search(str(name)):
        raise ValueError(f"found {ascii(name)[:80]}, expected plain text")
    return str(name)


def as_size(height, width) -> tuple[int, int]:
    """(height, width) of a picture as whole numbers; some programs write 48.0. Raises InvalidFile for anything else."""
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side for side in (height, width)]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        sentence = "it lacks the picture's size, expected two whole numbers; save it again"
        raise InvalidFile(sentence, f"{height} x {width}") from None
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


NO_OUTLINE = (
    "an object has a box but no outline, expected polygons; outline it in the labelling tool, or delete it there, and "
    "export again"
)


class Coco(NamedTuple):
    """A file. pictures: {id: file_name}, with "/" between folders. names: of all categories, in the order of their ids.
    keypoints: whether it is COCO's file of persons' joints, which repeats the outlines of the persons.
    """

    path: Path
    content: dict
    pictures: dict[int | str, PurePosixPath]
    names: tuple[str, ...]
    keypoints: bool


def is_coco(content) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))


def has_objects(content: dict) -> bool:
    """Whether a COCO file is about things of some class: COCO also has files of sentences, and of its own pictures."""
    annotations = content["annotations"]
    return not annotations or any(isinstance(each, dict) and "category_id" in each for each in annotations)


def open_coco(path: Path, content: dict) -> Coco:
    """What a COCO file is about. Raises InvalidFile if it is not whole, or two pictures have one id."""
    with _naming("images"):
        pictures: dict = {}
        for image in content["images"]:
            name = PurePosixPath(as_text(image["file_name"]).replace("\\", "/"))
            twin = pictures.setdefault(image["id"], name)
            if twin != name:
                raise InvalidFile("two pictures have the same id; export it again", f"{image['id']}: {twin} and {name}")
    with _naming("categories"):
        categories = content.get("categories", [])
        keypoints = "keypoints" in path.stem.lower() or any("keypoints" in each for each in categories)
        names = tuple(as_text(each["name"]) for each in sorted(categories, key=lambda each: each["id"]))
        return Coco(path, content, pictures, names, keypoints)


def read_outlines(coco: Coco, ids: Collection[int | str]) -> dict[int | str, Outlines]:
    """{id: outlines} of the pictures with these ids. Raises InvalidFile if anything is wrong."""
    with _naming("annotations"):
        names = {category["id"]: str(category["name"]) for category in coco.content.get("categories", [])}
        shapes: dict = {number: [] for number in ids}
        for annotation in coco.content["annotations"]:
            coco.pictures[annotation["image_id"]]  # a picture that the file does not know: it is not whole
            if annotation["image_id"] in shapes:
                label = names[annotation["category_id"]]
                outlines = _read_object(annotation, label)
                shapes[annotation["image_id"]] += [(label, "polygon", points) for points in outlines]
    with _naming("images"):
        return {
            image["id"]: Outlines(
                coco.path, as_size(image["height"], image["width"]), tuple(shapes[image["id"]]), of_many=True
            )
            for image in coco.content["images"] if image["id"] in shapes
        }  # fmt: skip


def _read_object(annotation: dict, label: str) -> list[list[tuple[float, float]]]:
    """The outlines of one object, which may be of several parts."""
    outlines, found = annotation.get("segmentation"), f"annotation {annotation.get('id')}, {label!r}"
    if isinstance(outlines, dict) or annotation.get("iscrowd"):
        raise InvalidFile(
            "run lengths (RLE, iscrowd) are not supported, expected polygons; export it again as polygons, or as PNG "
            "masks", found,
        )  # fmt: skip
    if not outlines:
        raise InvalidFile(NO_OUTLINE, found)
    with _naming(f"{found}, segmentation"):
        for outline in outlines:
            if len(outline) % 2:
                sentence = "an outline has an odd number of coordinates, expected x, y, x, y ...; draw it anew"
                raise InvalidFile(sentence, f"{found}: {len(outline)}")
            if len(outline) < 6:
                raise InvalidFile("an outline has no area; draw it as a polygon", found)
        return [as_points(outline[::2], outline[1::2]) for outline in outlines]


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Raises InvalidFile where reading this part fails, as what is missing or of another type has a hundred forms."""
    try:
        yield
    except InvalidFile:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        found = f"{part}: {type(error).__name__}: {error}"
        raise InvalidFile("it is no whole COCO file; export it again", found) from None


SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
SEVERAL = "several outlines have its name, and neither folders nor splits tell which are its own; keep one of them"
SHARED = (
    "pictures in several folders have this name, and nothing tells whose the outlines are; write the folder into their "
    "file_name, or give each folder a file of its own, such as instances_train.json and instances_val.json"
)


class Record(NamedTuple):
    """A picture in a COCO file. name: its file_name. split: the one that it or its file names, or None."""

    coco: Coco
    number: int | str
    name: PurePath
    split: str | None


def list_records(coco: Coco, root: Path) -> list[Record]:
    """All of a file below root."""
    return [
        Record(coco, number, name, _split_in(coco.path.relative_to(root).parent, name.parent, coco.path.stem))
        for number, name in coco.pictures.items()
    ]


def choose(records: Sequence[Record], split: str | None, others: Collection[str | None]) -> Record | None:
    """The record of a picture in a split; None where all are those of other splits.

    records: all that have its stem. others: splits that have a picture of this stem, too.
    Raises InvalidFile where nothing tells whose they are.
    """
    own = [record for record in records if split and record.split == split]
    found = own or [record for record in records if record.split not in others]
    found = [record for record in found if not record.coco.keypoints] or found  # joints repeat what others outline
    if len(found) > 1:
        raise InvalidFile(SEVERAL, " and ".join(name_files(found) if len(name_files(found)) > 1 else map(_say, found)))
    if found and not own and not {record.split for record in records}.issuperset(others):
        raise InvalidFile(SHARED, _say(found[0]))  # another split would take it, too
    return found[0] if found else None


def name_files(records: Sequence[Record]) -> list[str]:
    """The names of their files, each once."""
    return list(dict.fromkeys(record.coco.path.name for record in records))


def _say(record: Record) -> str:
    return f"{record.name} in {record.coco.path.name}"


def _split_in(*texts: PurePath | str) -> str | None:
    """The split that is named in the first of the texts in which just one is: train2017/, instances_val."""
    for text in texts:
        words = re.findall("[a-z]+", str(text).lower())
        splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
        if len(splits) == 1:
            return splits.pop()
    return None


NOT_READ = "it is neither LabelMe's nor COCO's JSON, which alone are read; export it as one of them, or as PNG masks"
NOT_HERE = "LabelMe's JSON is read beside the pictures and in masks/ only; move it there"
FOREIGN = "the outlines of its name are those of a picture in another folder; add its own, or move the picture away"
NO_OBJECTS = "it is COCO's JSON, but without objects; get the one with polygons, such as instances_train.json"


class Annotations:
    """The JSON files of LabelMe and COCO in a data set.

    folders: {split: (folder of pictures, of masks or None)}. COCO's files are kept, for several splits may share one.
    """

    def __init__(self, root: Path, folders: Mapping[str | None, tuple[Path, Path | None]], errors: Problems):
        self.root, self.errors = root, errors
        self.splits = {image_dir: split for split, (image_dir, _) in folders.items()}
        self.contents: dict[Path, dict[Path, Coco | Outlines | str | None]] = {}  # of the files for each image_dir
        self.coco: dict[Path, Coco] = {}
        self.faulty: set[Path] = set()  # named already
        self.used: set[Path] = set()  # COCO's that have a picture of some folder
        self.names: dict[str, None] = {}  # of COCO's categories, in the order of their ids
        self.labels: set[str] = set()  # of LabelMe

    def classes(self) -> tuple[str, ...]:
        """The names in all files that were looked at, background first; () if there were none."""
        names = dict.fromkeys([BACKGROUND, *self.names, *sorted(self.labels)])
        return tuple(name for name in names if name.lower() != VOID_NAME) if self.names or self.labels else ()

    def find(self, image_dir: Path, mask_dir: Path | None, images: Mapping[str, Path]) -> dict[str, Outlines | None]:
        """{stem: outlines, None if they are faulty} for the pictures {stem: file} in a folder."""
        stems = {normalize(stem): stem for stem in images}
        contents = {path: self._open(path, close) for path, close in self._list_files(image_dir, mask_dir)}
        self.contents[image_dir] = contents
        drawings: dict[str, Outlines | None] = {}
        for path, content in contents.items():
            if content is None:
                drawings |= _all_faulty(path, images)
            elif isinstance(content, Outlines):
                self._add(stems.get(normalize(path.stem), path.stem), content, drawings)
        records: dict[str, list[Record]] = {}
        for content in contents.values():
            for record in list_records(content, self.root) if isinstance(content, Coco) else ():
                if normalize(record.name.stem) in stems:
                    records.setdefault(stems[normalize(record.name.stem)], []).append(record)
                    self.used.add(content.path)
        self._add_coco(self.splits[image_dir], images, records, drawings)
        return drawings

    def _list_files(self, image_dir: Path, mask_dir: Path | None) -> Iterator[tuple[Path, bool]]:
        """All JSON files, and for each whether it lies where LabelMe's are read."""
        close = [folder for folder in (mask_dir, image_dir) if folder]
        places = [*close, image_dir.parent, image_dir.parent / "annotations", self.root, self.root / "annotations"]
        for folder in dict.fromkeys(places):
            if os.path.isdir(folder) and folder.is_relative_to(self.root):
                for path in sorted(folder.glob("*.[jJ][sS][oO][nN]")):
                    yield path, folder in close

    def _open(self, path: Path, close: bool) -> Coco | Outlines | str | None:
        """What a JSON file is: COCO's, LabelMe's outlines, or why it is not used; None where it is faulty."""
        try:
            content = self.coco.get(path) or read_json(path)
            if is_coco(content):
                content = open_coco(path, content) if has_objects(content) else NO_OBJECTS
            elif is_labelme(content):
                content = read_labelme(path, content) if close else NOT_HERE
            elif not isinstance(content, Coco):
                content = NOT_READ
        except InvalidFile as error:
            self._blame(path, error)
            return None
        if isinstance(content, Coco):
            self.coco[path] = content
            self.names |= dict.fromkeys(content.names)
        elif isinstance(content, Outlines):
            self.labels |= {label for label, _, _ in content.shapes}
        return content

    def _add_coco(
        self, split: str | None, images: Mapping[str, Path], records: dict[str, list[Record]], drawings: dict
    ) -> None:
        """Add the outlines of COCO's files. records: {stem: all that have it}."""
        chosen: dict[Path, dict[int | str, str]] = {}  # {file: {number of a picture in it: stem}}
        for stem, those in records.items():
            others = {other for other, there in self.stems_of.items() if other != split and normalize(stem) in there}
            try:
                record = choose(those, split, others)
                if record:
                    chosen.setdefault(record.coco.path, {})[record.number] = stem
                elif split != "test":  # which may do without masks
                    raise InvalidFile(FOREIGN, " and ".join(name_files(those)))
            except InvalidFile as error:
                self.errors.add(str(error), images[stem], error.found)
                drawings[stem] = None
        for path, stem_of in chosen.items():
            try:
                for number, drawing in read_outlines(self.coco[path], stem_of).items():
                    self._add(stem_of[number], drawing, drawings)
            except InvalidFile as error:
                self._blame(path, error)
                drawings |= _all_faulty(path, images)

    @cached_property
    def stems_of(self) -> dict[str | None, set[str]]:
        """{split: the stems in its folder of pictures}; what can't be read is named by who reads the pictures."""
        listed = {split: os.listdir(folder) for folder, split in self.splits.items() if os.access(folder, os.R_OK)}
        return {
            split: {normalize(PurePath(name).stem) for name in names if not name.lower().endswith(".json")}
            for split, names in listed.items()
        }

    def _add(self, stem: str, drawing: Outlines, drawings: dict[str, Outlines | None]) -> None:
        twin = drawings.setdefault(stem, drawing)
        if twin and twin is not drawing:
            self.errors.add("two files have its picture; keep one", drawing.path, f"{stem}, and {twin.path.name}")
            drawings[stem] = None

    def _blame(self, path: Path, error: InvalidFile) -> None:
        """Name what is wrong with a file, once, though it may be looked at for each split."""
        if path not in self.faulty:
            self.errors.add(str(error), path, error.found)
        self.faulty.add(path)

    def blame_unused(self, image_dir: Path) -> None:
        """Say of each file that `find` looked at why it is not used: for where nothing else has masks, either."""
        for path, content in self.contents.get(image_dir, {}).items():
            if isinstance(content, str):
                self.errors.add(content, path)
            elif isinstance(content, Coco) and path not in self.used:
                folder = image_dir.relative_to(self.root)
                first = next(iter(content.pictures.values()), "no picture")
                sentence = f"it is COCO's JSON, but none of its pictures is in {folder}; give both the same names"
                self.errors.add(sentence, path, f"it names {first}")


def _all_faulty(path: Path, images: Mapping[str, Path]) -> dict[str, None]:
    """The stems that a faulty file may be of."""
    return dict.fromkeys({path.stem} if path.stem in images else images)
