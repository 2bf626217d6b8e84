"""The classes of a data set: classes.txt, class_dict.csv, labelmap.txt, and what their lines say."""

import colorsys
import csv
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..labels import CAMVID, CONTROL, VOID, LabelMap
from ..storage import read_regular

COLOR = re.compile(r"(.*[^\s:])[\s:]+(#[0-9a-fA-F]{6}|\d+\s*,\s*\d+\s*,\s*\d+)")  # NAME R,G,B or NAME #RRGGBB
# The same as other programs write it: NAME,R,G,B or NAME (R,G,B) or NAME R G B, and R G B NAME.
RGB = r"(?P<bracket>[(\[]?)\s*(?P<r>\d{1,3})\s*[,;\s]\s*(?P<g>\d{1,3})\s*[,;\s]\s*(?P<b>\d{1,3})\s*[)\]]?"
NAME_FIRST = re.compile(rf"(?P<name>.*[^\s:=,;])[\s:=,;]+{RGB}")
COLOR_FIRST = re.compile(rf"{RGB}[\s:=,;]+(?P<name>\S.*)")
SHARE = re.compile(r"\s*\(\d+(\.\d+)?%\)$")  # stands behind each colour in our own message, and is copied with it
LIKE_A_COLOR = re.compile(r"\d+\s*[,;]\s*\d+\s*[,;]\s*\d+")
NEXT_TO_COLOR = {NAME_FIRST: re.compile(r"(.*[\s:=,;])?\d+"), COLOR_FIRST: re.compile(r"\d+([\s:=,;].*)?")}
NUMBERED = re.compile(r"(\d{1,5})([\s:=,;.)]+)(\S.*)")  # 3 person, 3: person
COMMENT = re.compile(r"#(?![0-9a-fA-F]{6}\b)")


class Line(NamedTuple):
    """A class in a list: number of its line in the file, its name, its colour 65536 r + 256 g + b and its value in the
    masks, None where the list does not give them. whole_name: with what was taken as the value, where it may belong to
    the name (2 way street), else ""."""

    number: int
    name: str
    color: int | None
    value: int | None = None
    whole_name: str = ""


def parse_lines(path: Path, texts: Sequence[str]) -> list[Line]:
    """The classes of a classes.txt, in the order of their numbers if all lines have one; `path` is for messages.

    Raises ValueError, naming file and line, for an empty line and for what may be a colour or not.
    """
    kept = [(number, text.strip()) for number, text in enumerate(texts, 1) if not COMMENT.match(text.strip())]
    for place, (number, text) in enumerate(kept):
        if not text:
            raise ValueError(f"{path}, line {number}: it is empty; write the name of value {place}, or delete it")
    strict = [COLOR.fullmatch(SHARE.sub("", text)) for _, text in kept]
    loose = [match or _match_loosely(text) for match, (_, text) in zip(strict, kept, strict=True)]
    matches = loose if all(loose) else strict  # a name may end in numbers, but hardly all names in three
    lines = [
        _colored_line(path, number, text, match) if match else Line(number, text, None)
        for (number, text), match in zip(kept, matches, strict=True)
    ]
    for line in lines:
        if line.color is None and LIKE_A_COLOR.search(line.name):
            raise _unclear(path, line.number, line.name)
    return _take_numbers(path, lines)


def to_color(path: Path, number: int, text: str) -> int:
    """65536 r + 256 g + b of "R,G,B" or "#RRGGBB". Raises ValueError, naming file and line."""
    try:
        r, g, b = bytes.fromhex(text[1:]) if text.startswith("#") else map(int, text.split(","))
        if not all(0 <= channel <= 255 for channel in (r, g, b)):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{path}, line {number}: found the colour {text!r}, expected R,G,B, three numbers from 0 to 255; correct it"
        ) from None
    return r << 16 | g << 8 | b


def _match_loosely(text: str) -> re.Match | None:
    text = SHARE.sub("", text)
    return COLOR_FIRST.fullmatch(text) or NAME_FIRST.fullmatch(text)


def _colored_line(path: Path, number: int, text: str, match: re.Match) -> Line:
    if match.re is COLOR:
        return Line(number, match[1], to_color(path, number, match[2]))
    if NEXT_TO_COLOR[match.re].fullmatch(match["name"]) and not match["bracket"]:  # four numbers in a row
        raise _unclear(path, number, text)
    return Line(number, match["name"], to_color(path, number, ",".join(match.group("r", "g", "b"))))


def _unclear(path: Path, number: int, text: str) -> ValueError:
    return ValueError(
        f"{path}, line {number}: found {text!r}, and it is not clear which numbers are the colour; write the name, a "
        "space and the colour, as in 'road 128,64,128'"
    )


def _take_numbers(path: Path, lines: list[Line]) -> list[Line]:
    """The lines with the numbers in front of their names as values, if all have one."""
    matches = [NUMBERED.fullmatch(line.name) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(lines):
        in_order = numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] < 2
        if in_order and 1 < len(numbers) == len(lines) - 1:
            line = lines[matches.index(None)]
            raise ValueError(
                f"{path}, line {line.number}: {line.name!r} has no number, but all other lines have; write one in "
                "front of it, or, if it is a title, a # and a space"
            )
        return lines
    for place, line in enumerate(lines):
        twin = lines[numbers.index(numbers[place])]
        if twin is not line:
            raise ValueError(
                f"{path}, line {line.number}: {line.name!r} has the same number as line {twin.number}; give each class "
                "its own, the value that stands for it in the masks"
            )
    names = [match[3] for match in matches]
    # What may be part of a name is no 0, has no colon behind it, and is seldom 1, 2, 3 in the order of the lines.
    clear = 0 in numbers or "void" in map(str.lower, names) or any(match[2].strip(" ") for match in matches)
    if not clear and len(set(names)) < len(names):
        return lines  # only their numbers tell them apart
    clear = clear or numbers == list(range(1, len(lines) + 1))
    numbered = [
        line._replace(name=name, value=value, whole_name="" if clear else line.name)
        for line, name, value in zip(lines, names, numbers, strict=True)
    ]
    return sorted(numbered, key=lambda line: line.value)


MAX_BYTES = 1 << 26  # of a list
VOID_NAME = "void"  # in a list of classes: what is so called is no class, and is neither learned nor scored
BACKGROUND = "background"  # the class of all that no outline covers
LABELME_NAMES = {"_background_": BACKGROUND, "__ignore__": VOID_NAME}  # its own names, in its labels.txt
# M. Okabe and K. Ito, Color Universal Design, 2008: told apart by the colour-blind, too.
OKABE_ITO = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
# Which of CamVid's 32 classes make one of the 11, as SegNet's authors grouped them; what is not here is void.
CAMVID_GROUPS = {
    "sky": ("Sky",),
    "building": ("Archway", "Bridge", "Building", "Tunnel", "Wall"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}


class ClassList(NamedTuple):
    """names: of the K classes. value_ids: {value in a mask: id, or VOID}; color_ids: the same for colours 65536 r + 256
    g + b, empty where the list has none. colors: K (r, g, b) or () if not known. path: the file. numbered: whether the
    list itself gives the values; else they are 0, 1, ... in the order of its lines. otherwise: the same list, if its
    numbers may be parts of the names.
    """

    names: tuple[str, ...]
    value_ids: dict[int, int]
    color_ids: dict[int, int]
    colors: tuple[tuple[int, int, int], ...]
    path: Path
    numbered: bool = False
    otherwise: "ClassList | None" = None


def find_classes(root: Path) -> ClassList | None:
    """The list in root/classes.txt, else class_dict.csv, else labelmap.txt; None where there is none of them. Where no
    name is so spelled, those in other letters count, too, and those with a second ".txt", which Windows hides.

    classes.txt has a name a line, that of value 0 first, spaces allowed, or each line begins with its value (see
    `coding.choose_reading`); with colours, each line ends in "R,G,B" or "#RRGGBB" after a space. The name "void" stands
    for pixels that are neither learned nor scored. Lines that begin with "#" are comments.
    Raises ValueError, naming file and line, if it can't be understood.
    """
    readers = {"classes.txt": _read_names, "class_dict.csv": _read_csv, "labelmap.txt": _read_labelmap}
    for name, read in readers.items():
        if os.path.isfile(root / name):  # Path.is_file raises PermissionError
            return _make_list(root / name, read(root / name))
    for name, read in readers.items():
        spelled = [path for path in _list_files(root) if path.name.lower() in (name, f"{name}.txt")]
        if len(spelled) > 1:
            raise ValueError(f"{spelled[0]}: {spelled[1].name} is there, too; keep one list of classes, as {name}")
        if spelled:
            return _make_list(spelled[0], read(spelled[0]))
    return None


def read_names(path: Path) -> tuple[str, ...]:
    """Names of the classes in a file written as classes.txt is, in the order of their ids; see `find_classes`."""
    return _make_list(path, _read_names(path)).names


def find_unread_lists(folders: Iterable[Path], stems: Collection[str]) -> list[Path]:
    """Files in these folders that may be lists of classes by their names; none has the stem of a picture, for tools
    that draw boxes write a text for each."""
    files = [path for folder in folders for path in _list_files(folder) if path.stem not in stems]
    return [path for path in files if re.fullmatch(r".*(class|label).*\.(txt|csv|names)", path.name.lower())]


def _list_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:  # `layout.find_items` says what is wrong with the folder
        return []


def camvid_classes(root: Path) -> ClassList:
    """CamVid's 32 colours, from class_dict.csv in root or above it, as the 11 classes of `labels.CAMVID`.

    Raises ValueError, naming the file, if there is none, it lacks a column or one of the grouped classes.
    """
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
    """Label map with the given colours, all different; with colours of its own where there are none, and in the place
    of white, which is void's."""
    own = list(OKABE_ITO[: len(names)])
    for k in range(len(own), len(names)):
        hue = colorsys.hsv_to_rgb(k / len(names), 0.9, 0.5 + 0.4 * (k % 2))
        own.append(tuple(round(255 * channel) for channel in hue))
    spare = next((color for color in own if color not in colors), None)  # there is one where white is given
    return LabelMap(names, tuple(spare if color == (255, 255, 255) else color for color in colors or own))


def _make_list(path: Path, lines: list[Line]) -> ClassList:
    """The list of these lines. Raises ValueError for names and colours that are not unique, too few and too many."""
    colored = [line for line in lines if line.color is not None]
    if colored and len(colored) < len(lines):
        line = next(line for line in lines if line.color is None)
        raise ValueError(
            f"{path}, line {line.number}: {line.name!r} has no colour, but other lines have; write one as R,G,B, three "
            "numbers from 0 to 255, or take all colours away"
        )
    for line in filter(lambda line: CONTROL.search(line.name), lines):
        raise ValueError(
            f"{path}, line {line.number}: found a control character in {ascii(line.name)}; delete it, or write the "
            "line anew"
        )
    for what in ("name", "color"):
        seen = {}
        for line in colored if what == "color" else lines:
            twin = seen.setdefault(getattr(line, what), line)
            if twin is not line and line.name.lower() != VOID_NAME:
                raise ValueError(
                    f"{path}, line {line.number}: {line.name!r} has the same {what.replace('color', 'colour')} as line "
                    f"{twin.number}; give each class its own"
                )
    classes = [line for line in lines if line.name.lower() != VOID_NAME]
    if not 2 <= len(classes) <= VOID:
        raise ValueError(
            f"{path}: found {len(classes)} names, expected 2 to {VOID}, one for each class; what surrounds the things "
            "that you look for is a class, too, such as 'background'"
        )
    names = tuple(line.name for line in classes)
    ids = [VOID if line.name.lower() == VOID_NAME else names.index(line.name) for line in lines]
    rgb = tuple((line.color >> 16, line.color >> 8 & 255, line.color & 255) for line in classes) if colored else ()
    color_ids = dict(zip((line.color for line in lines), ids, strict=True)) if colored else {}
    numbered = lines[0].value is not None
    values = [line.value for line in lines] if numbered else range(len(lines))
    otherwise = None
    if lines[0].whole_name:
        unnumbered = [line._replace(name=line.whole_name, value=None, whole_name="") for line in lines]
        otherwise = _make_list(path, sorted(unnumbered, key=lambda line: line.number))
    return ClassList(names, dict(zip(values, ids, strict=True)), color_ids, rgb, path, numbered, otherwise)


def read_text(path: Path) -> str:
    """Text of a list; its lines end in "\\n", whichever system wrote it. `str.splitlines` would end some within."""
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")  # some editors write a mark in front of UTF-8
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: it is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}); make it readable or get it again") from None
    if "\0" in text:  # UTF-16 of plain letters is UTF-8, too, with a zero after each letter
        raise ValueError(f"{path}: it holds zero bytes, as UTF-16 does; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_names(path: Path) -> list[Line]:
    text = read_text(path).rstrip()
    lines = parse_lines(path, text.split("\n") if text else [])
    if [line.name for line in lines[:2]] == ["__ignore__", "_background_"] and lines[0].value is None:
        lines = lines[1:]  # LabelMe counts from -1, so that the background is 0
    return [line._replace(name=LABELME_NAMES.get(line.name, line.name)) for line in lines]


def _read_csv(path: Path) -> list[Line]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(path).split("\n"))]
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    header = [cell.lower() for cell in numbered[0][1]] if numbered else []
    if not {"name", "r", "g", "b"} <= set(header):
        raise ValueError(f"{path}, line 1: found {header}, expected the columns name, r, g, b; write this line")
    name, *rgb = (header.index(column) for column in ("name", "r", "g", "b"))
    return [_line(path, n, row, lambda row: (row[name], ",".join(row[k] for k in rgb))) for n, row in numbered[1:]]


def _read_labelmap(path: Path) -> list[Line]:
    """CVAT's lines "name:r,g,b:parts:actions"."""
    numbered = [(n, line.strip()) for n, line in enumerate(read_text(path).split("\n"), 1)]
    return [
        _line(path, n, line.split(":"), lambda cells: (cells[0].strip(), cells[1]))
        for n, line in numbered if line and not line.startswith("#")
    ]  # fmt: skip


def _line(path: Path, number: int, cells: list[str], split: Callable) -> Line:
    try:
        name, color = split(cells)
        if not name:
            raise IndexError
    except IndexError:
        raise ValueError(f"{path}, line {number}: found {cells}, expected a name and r, g, b; complete it") from None
    return Line(number, name, to_color(path, number, color))
