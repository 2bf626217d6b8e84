"""What was found in a folder of pictures and masks: one table, with errors and warnings apart."""

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..labels import printable

MOST = 10  # names for a fault; the rest is counted
WIDTH = 100  # columns of a table and of notes
MODES = {  # Pillow's names for how a file holds its pixels
    "1": "black and white", "L": "grey", "LA": "grey and alpha", "P": "palette", "RGBA": "RGB and alpha",
    "I;16": "grey of 16 bits",
}  # fmt: skip


class ValidationError(ValueError):
    """All that is wrong with the files of a folder. report: what was found in it, with these errors."""

    def __init__(self, report: "Report"):
        lines = report.errors
        if lines[1:]:
            lines = [f"{len(lines)} kinds of faults in its files", *lines]
        super().__init__("\n".join([f"{printable(report.root)}: {lines[0]}", *lines[1:]]))
        self.report = report


class Problems:
    """Sentences about files, each once with all files that it is true of, in the order in which they came."""

    def __init__(self, root: Path):
        self.root, self.files_of = root, {}

    def add(self, sentence: str, file: Path, found: str = "") -> None:
        self.files_of.setdefault(sentence, []).append((file, found))

    def lines(self) -> list[str]:
        """Lines "masks/p1.png, masks/p2.png (FOUND); masks/p4.png (FOUND) and 3 more: SENTENCE", names relative to the
        folder, whose own is left out."""
        return [
            sentence if files[0][0] == self.root else f"{self._names(files)}: {sentence}"
            for sentence, files in self.files_of.items()
        ]

    def _names(self, files: list[tuple[Path, str]]) -> str:
        names: dict[str, list[str]] = {}  # by what was found in them, which is said once
        for file, found in files[:MOST]:
            name = file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)
            names.setdefault(printable(found), []).append(printable(name))
        groups = [", ".join(group) + (f" ({found})" if found else "") for found, group in names.items()]
        return "; ".join(groups) + (f" and {len(files) - MOST:,} more" if len(files) > MOST else "")


@dataclass
class Report:
    """root: the folder. pairs: in each split. sizes: "HEIGHTxWIDTH" of the pictures, upright, and how many there are.
    pictures, masks: kinds of files. reading: how ids are found in the masks. classes: (id, name, share of the pixels),
    none where no pair is left. void: its share. shares: of each split those of all classes and of void, where they
    were counted. converted: what is written anew, and how often; copies: the folder of what was written, "" if nothing
    was. errors: each must be mended before a training. warnings: each should be read.
    """

    root: str
    pairs: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)
    reading: str = ""
    classes: list[tuple[int, str, float]] = field(default_factory=list)
    void: float = 0.0
    shares: dict[str, list[float]] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    copies: str = ""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, names: Sequence[str], pixels: dict[str, Sequence[int]]) -> None:
        """Set classes, void and shares. pixels: of each split those of the K classes, and last those of void."""
        pixels = {split: numbers for split, numbers in pixels.items() if sum(numbers)}
        pixels = {"all": [sum(column) for column in zip(*pixels.values(), strict=True)]} | pixels
        self.shares = {split: [n / max(1, sum(numbers)) for n in numbers] for split, numbers in pixels.items()}
        *shares, self.void = self.shares["all"] or [0.0] * (len(names) + 1)
        self.classes = [(k, name, share) for k, (name, share) in enumerate(zip(names, shares, strict=True))]

    def table(self, width: int = WIDTH) -> str:
        """All of it as text, a row for each finding, in lines of so many columns."""
        pairs = ", ".join(f"{n:,} {split}" for split, n in self.pairs.items())
        pairs += "; those with errors are not counted" if pairs and self.errors else ""
        rows = [("folder", self.root), ("pairs", pairs)]
        rows += [("sizes", _counted({f"of {size}": n for size, n in self.sizes.items()}, " (height x width)"))]
        kinds = [("pictures", _counted(self.pictures)), ("masks", _counted(self.masks))]
        rows += [(name, re.sub(r"(?<=of mode )[\w;]+", _say_mode, text)) for name, text in kinds]
        rows += [("ids", self.reading)]
        if self.classes:
            done = f"; the copies are in {self.copies}, your files are as they were" if self.copies else ""
            nothing = f"nothing: training reads all {'other ' * bool(self.errors)}files as they are"
            rows += [*self._share_rows(), ("converted", _counted(self.converted, done) or nothing)]
        rows += [("warning", line) for line in self.warnings] + [("ERROR", line) for line in self.errors]
        return "\n".join(wrap(f"{name:<10} ", text, width) for name, text in rows if text)

    def notes(self, width: int = WIDTH) -> str:
        """The warnings as text, in lines of so many columns."""
        return "\n".join(wrap("note: ", line, width) for line in self.warnings)

    def raise_errors(self) -> None:
        """Raises ValidationError with all errors, a line each, if there are any."""
        if self.errors:
            raise ValidationError(self)

    def _share_rows(self) -> list[tuple[str, str]]:
        columns = self.shares or {"all": [share for _, _, share in self.classes] + [self.void]}
        names = [(f"class {k}", name) for k, name, _ in self.classes] + [("void", "neither learned nor scored")]
        rows = [("pixels, %", "".join(f"{split:>12}" for split in columns))]
        for (row, name), *shares in zip(names, *columns.values(), strict=True):
            rows.append((row, "".join(f"{100 * share:12.3f}" for share in shares) + f"  {name}"))
        return rows


def wrap(label: str, text: str, width: int = WIDTH) -> str:
    """The text behind a label, in lines of so many columns that all begin below its first word. No name is cut."""
    indent, text = " " * len(label), printable(text)
    return textwrap.fill(
        text, width, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _counted(numbers: dict[str, int], end: str = "") -> str:
    """ "48 PNG of mode L, 2 GIF of mode P" and the end: the commonest first. "" for none."""
    common = Counter(numbers).most_common(MOST)
    more = [f"{sum(numbers.values()) - sum(n for _, n in common):,} of other kinds"] * (len(numbers) > MOST)
    return ", ".join([f"{n:,} {what}" for what, n in common] + more) + end * bool(numbers)


def _say_mode(mode: re.Match) -> str:
    return f"{mode[0]} ({MODES[mode[0]]})" if mode[0] in MODES else mode[0]
