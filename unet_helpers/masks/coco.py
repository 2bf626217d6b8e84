"""COCO's JSON: the outlines of many pictures in one file. Only those of the pictures that are there are read."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .polygons import Drawing, as_points, as_size, as_text
from .report import Unfit

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
    """What a COCO file is about. Raises Unfit if it is not whole, or two pictures have one id."""
    with _naming("images"):
        pictures: dict = {}
        for image in content["images"]:
            name = PurePosixPath(as_text(image["file_name"]).replace("\\", "/"))
            twin = pictures.setdefault(image["id"], name)
            if twin != name:
                raise Unfit("two pictures have the same id; export it again", f"{image['id']}: {twin} and {name}")
    with _naming("categories"):
        categories = content.get("categories", [])
        keypoints = "keypoints" in path.stem.lower() or any("keypoints" in each for each in categories)
        names = tuple(as_text(each["name"]) for each in sorted(categories, key=lambda each: each["id"]))
        return Coco(path, content, pictures, names, keypoints)


def read_outlines(coco: Coco, ids: Collection[int | str]) -> dict[int | str, Drawing]:
    """{id: outlines} of the pictures with these ids. Raises Unfit if they hold anything else, or are not whole."""
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
            image["id"]: Drawing(
                coco.path, as_size(image["height"], image["width"]), tuple(shapes[image["id"]]), of_many=True
            )
            for image in coco.content["images"] if image["id"] in shapes
        }  # fmt: skip


def _read_object(annotation: dict, label: str) -> list[list[tuple[float, float]]]:
    """The outlines of one object, which may be of several parts."""
    outlines, found = annotation.get("segmentation"), f"annotation {annotation.get('id')}, {label!r}"
    if isinstance(outlines, dict) or annotation.get("iscrowd"):
        raise Unfit(
            "run lengths (RLE, iscrowd) are not supported, expected polygons; export it again as polygons, or as PNG "
            "masks", found,
        )  # fmt: skip
    if not outlines:
        raise Unfit(NO_OUTLINE, found)
    with _naming(f"{found}, segmentation"):
        for outline in outlines:
            if len(outline) % 2:
                sentence = "an outline has an odd number of coordinates, expected x, y, x, y ...; draw it anew"
                raise Unfit(sentence, f"{found}: {len(outline)}")
            if len(outline) < 6:
                raise Unfit("an outline has no area; draw it as a polygon", found)
        return [as_points(outline[::2], outline[1::2]) for outline in outlines]


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Raises Unfit where reading this part fails, as what is missing or of another type has a hundred forms."""
    try:
        yield
    except Unfit:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Unfit("it is no whole COCO file; export it again", f"{part}: {type(error).__name__}: {error}") from None
