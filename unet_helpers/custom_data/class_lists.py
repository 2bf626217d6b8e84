"""The classes of a data set: classes.txt, class_dict.csv, labelmap.txt, and what their lines say."""

import colorsys
import csv
import os
import re
from pathlib import Path
from typing import NamedTuple

from ..labels import CAMVID, CONTROL, VOID, LabelMap
from ..naming import counted
from ..storage import read_regular

MAX_LIST_BYTES = 1 << 26
VOID_NAME = "void"  # in a list of classes: pixels of this name are neither learned nor scored
BACKGROUND = "background"  # the class of all that no outline covers
LABELME_NAMES = {"_background_": BACKGROUND, "__ignore__": VOID_NAME}  # LabelMe's own names, in its labels.txt

COLORED = re.compile(  # NAME R,G,B or NAME #RRGGBB or NAME,R,G,B; "(8.3%)" is copied from our own message
    r"(.*[^\s:,])(?:[\s:]+|(?<!\d)\s*,\s*)(#[0-9a-fA-F]{6}|\d+\s*,\s*\d+\s*,\s*\d+)(?:\s*\(\d+(?:\.\d+)?%\))?"
)
LIKE_A_COLOR = re.compile(r"\b\d{1,3}((\s*[,;]\s*|\s+)\d{1,3}){2}\b|#[0-9a-fA-F]{6}\b")
NUMBERED = re.compile(r"(\d{1,5})([\s:=,;.)]+)(\S.*)")  # 3 person, 3: person
COMMENT = re.compile(r"#(?![0-9a-fA-F]{6}\b)")
# M. Okabe and K. Ito, Color Universal Design, 2008: colours that colour-blind readers can tell apart.
OKABE_ITO = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]
# Which of CamVid's 32 classes make one of the 11, as SegNet's authors grouped them; what is not here is void.
CAMVID_GROUPS = {
    "sky": ("Sky",), "building": ("Archway", "Bridge", "Building", "Tunnel", "Wall"),
    "pole": ("Column_Pole", "TrafficCone"), "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"), "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"), "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"), "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}  # fmt: skip


class Line(NamedTuple):
    number: int  # of the line in the file
    name: str
    color: int | None  # 65536 r + 256 g + b; None where the list gives none
    value: int | None = None  # in the masks; None where the list gives none


class ClassList(NamedTuple):
    names: tuple[str, ...]
    value_ids: dict[int, int]  # {value in a mask: class id or VOID}
    color_ids: dict[int, int]  # {65536 r + 256 g + b: class id or VOID}; empty where the list has no colours
    colors: tuple[tuple[int, int, int], ...]  # K (r, g, b), or () where the list has none
    path: Path
    numbered: bool = False  # whether the list gives the values; else they are 0, 1, ... in the order of its lines


def find_classes(root: Path) -> ClassList | None:
    """The list in root: the first of classes.txt, class_dict.csv, labelmap.txt and train/_classes.csv, else None.
    Raises ValueError, naming file and line, for anything that could be read in two ways."""
    for name, read in (
        ("classes.txt", _read_names), ("class_dict.csv", _read_csv), ("labelmap.txt", _read_labelmap),
        ("train/_classes.csv", _read_roboflow), ("test/_classes.csv", _read_roboflow),
    ):  # fmt: skip
        if os.path.isfile(root / name):
            return _make_list(root / name, read(root / name))
    return None


def read_names(path: Path) -> tuple[str, ...]:
    """Names of the classes in a file written as classes.txt is, in the order of their ids; see `find_classes`."""
    return _make_list(path, _read_names(path)).names


def camvid_classes(root: Path) -> ClassList:
    """CamVid's 32 colours, from class_dict.csv in root or above it, as the 11 classes of `labels.CAMVID`.
    Raises ValueError, naming the file, if there is none, or it lacks a column or one of the grouped classes."""
    path = next((p for p in (root / "class_dict.csv", root.parent / "class_dict.csv") if os.path.isfile(p)), None)
    if path is None:
        raise ValueError(f"{root / 'class_dict.csv'}: not found; it tells the masks' colours, get it again")
    colors = {line.name.lower(): line.color for line in _read_csv(path)}
    id_of = {name.lower(): CAMVID.names.index(group) for group, names in CAMVID_GROUPS.items() for name in names}
    missing = sorted(id_of.keys() - colors.keys())
    if missing:
        raise ValueError(f"{path}: the class {missing[0]!r} is not listed ({len(missing)} are missing); get it again")
    color_ids = {color: id_of.get(name, VOID) for name, color in colors.items()}
    return ClassList(CAMVID.names, {}, color_ids, CAMVID.colors, path)


def make_labels(names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...] = ()) -> LabelMap:
    """Label map with the given colours, with others where there are none and instead of white, which is void's."""
    own = [tuple(bytes.fromhex(color[1:])) for color in OKABE_ITO[: len(names)]]
    for k in range(len(own), len(names)):
        hue = colorsys.hsv_to_rgb(k / len(names), 0.9, 0.5 + 0.4 * (k % 2))
        own.append(tuple(round(255 * channel) for channel in hue))
    spare = next((color for color in own if color not in colors), None)  # there is one where white is given
    return LabelMap(names, tuple(spare if color == (255, 255, 255) else color for color in colors or own))


def read_text(path: Path) -> str:
    """Text of a list; its lines end in "\\n" only, whichever system wrote it. Raises ValueError if it can't be read."""
    try:
        text = read_regular(path, MAX_LIST_BYTES).decode("utf-8-sig")  # some editors write a mark in front of UTF-8
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: it is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}); make it readable or get it again") from None
    if "\0" in text:  # UTF-16 of plain letters is UTF-8, too, with a zero after each letter
        raise ValueError(f"{path}: it holds zero bytes, as UTF-16 does; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _make_list(path: Path, lines: list[Line]) -> ClassList:
    """The list of these lines. Raises ValueError for names and colours that are not unique, too few or too many."""
    seen: dict[tuple, Line] = {}
    for line in lines:
        where, shown = f"{path}, line {line.number}", ascii(line.name)
        if CONTROL.search(line.name):
            raise ValueError(f"{where}: found a control character in {shown}; delete it, or write the line anew")
        for what, key in (("name", line.name), ("colour", line.color), ("value", line.value)):
            twin = line if key is None else seen.setdefault((what, key), line)
            if twin is not line and not line.name.lower() == twin.name.lower() == VOID_NAME:
                same = f"{line.name!r} has the same {what} as line {twin.number}"
                raise ValueError(f"{where}: {same}; give each class its own")
    classes = [line for line in lines if line.name.lower() != VOID_NAME]
    if not 2 <= len(classes) <= VOID:
        found, expected = f"found {counted(len(classes), 'name')}", f"expected 2 to {VOID}, one for each class"
        raise ValueError(f"{path}: {found}, {expected}; what surrounds things is a class, too, such as 'background'")
    numbered, colored = lines[0].value is not None, lines[0].color is not None
    if numbered:
        classes.sort(key=lambda line: line.value)
    names = tuple(line.name for line in classes)
    ids = [names.index(line.name) if line.name in names else VOID for line in lines]
    value_ids = {line.value if numbered else place: k for place, (line, k) in enumerate(zip(lines, ids, strict=True))}
    color_ids = {line.color: k for line, k in zip(lines, ids, strict=True) if colored}
    rgb = tuple(tuple(line.color.to_bytes(3)) for line in classes if colored)
    return ClassList(names, value_ids, color_ids, rgb, path, numbered)


def _read_names(path: Path) -> list[Line]:
    """The lines of a classes.txt: all with colours, or, where none holds anything like one, all without."""
    lines = [(number, text.strip()) for number, text in enumerate(read_text(path).rstrip().split("\n"), 1)]
    lines = [(number, text) for number, text in lines if not COMMENT.match(text)]
    colored = any(LIKE_A_COLOR.search(text) for _, text in lines)
    found = []
    for place, (number, text) in enumerate(lines if any(text for _, text in lines) else ()):
        match = COLORED.fullmatch(text) if colored else None
        if not text:
            raise ValueError(f"{path}, line {number}: it is empty; write the name of value {place}, or delete it")
        if colored and not match:
            what = f"found {text!r}, and it is not clear what its colour is, but lines here have one"
            todo = "write the name, a space and the colour in each, as in 'road 128,64,128'"
            raise ValueError(f"{path}, line {number}: {what}; {todo}")
        found.append(Line(number, match[1], _to_color(path, number, match[2])) if match else Line(number, text, None))
    found = _take_values(path, found)
    if [line.name for line in found[:2]] == ["__ignore__", "_background_"] and found[0].value is None:
        found = found[1:]  # LabelMe counts from -1, so that the background is 0
    return [line._replace(name=LABELME_NAMES.get(line.name, line.name)) for line in found]


def _take_values(path: Path, lines: list[Line]) -> list[Line]:
    """The lines with the numbers in front of their names as values, if all have one that can be nothing else."""
    matches = [NUMBERED.fullmatch(line.name) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    in_order = len(numbers) > 1 and numbers in ([*range(len(numbers))], [*range(1, len(numbers) + 1)])
    if not lines or None in matches and not in_order:
        return lines
    if None in matches or not (in_order or 0 in numbers or all(match[2].strip() for match in matches)):
        line = lines[matches.index(None) if None in matches else 0]
        what = f"found {line.name!r}, and it is not clear whether the numbers in front of names are their ids"
        todo = "write an id and a colon in front of each, as in '7: road', or a # and a space in front of a title"
        raise ValueError(f"{path}, line {line.number}: {what}; {todo}")
    return [line._replace(name=match[3], value=int(match[1])) for line, match in zip(lines, matches, strict=True)]


def _read_table(path: Path, *columns: str) -> list[tuple[int, list[str]]]:
    """(number of the line, cells of these columns) of a CSV file's rows. Raises ValueError if a column is missing."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(path).split("\n"))]
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    header = [cell.lower() for cell in numbered[0][1]] if numbered else []
    if not set(columns) <= set(header):
        raise ValueError(f"{path}, line 1: found {header}, expected the columns {', '.join(columns)}; write this line")
    places = [header.index(column) for column in columns]
    return [(n, [(row + [""] * len(header))[k] for k in places]) for n, row in numbered[1:]]


def _read_csv(path: Path) -> list[Line]:
    return [_line(path, number, cells) for number, cells in _read_table(path, "name", "r", "g", "b")]


def _read_roboflow(path: Path) -> list[Line]:
    rows = _read_table(path, "class", "pixel value")
    if odd := [number for number, (name, value) in rows if not name or not value.isdecimal()]:
        raise ValueError(f"{path}, line {odd[0]}: expected a pixel value and a class; correct it")
    return [Line(number, name, None, int(value)) for number, (name, value) in rows]


def _read_labelmap(path: Path) -> list[Line]:
    """CVAT's lines "name:r,g,b:parts:actions"."""
    lines = [(n, text.strip()) for n, text in enumerate(read_text(path).split("\n"), 1)]
    return [_line(path, n, text.split(":")[:2]) for n, text in lines if text and not text.startswith("#")]


def _line(path: Path, number: int, cells: list[str]) -> Line:
    """cells: the name, and the colour as one or three texts."""
    name, *rgb = map(str.strip, cells)
    if not name or not rgb:
        raise ValueError(f"{path}, line {number}: found {cells}, expected a name and r, g, b; complete it")
    return Line(number, name, _to_color(path, number, ",".join(rgb)))


def _to_color(path: Path, number: int, text: str) -> int:
    """65536 r + 256 g + b of "R,G,B" or "#RRGGBB". Raises ValueError, naming file and line."""
    try:
        r, g, b = bytes.fromhex(text[1:]) if text.startswith("#") else bytes(map(int, text.split(",")))
    except ValueError:
        expected = "expected R,G,B, three numbers from 0 to 255; correct it"
        raise ValueError(f"{path}, line {number}: found the colour {text!r}, {expected}") from None
    return r << 16 | g << 8 | b
