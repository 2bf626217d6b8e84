"""What the lines of classes.txt say: a name each and, where the file has it, the number or the colour of its class."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
