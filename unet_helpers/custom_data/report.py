"""What was found in a folder of images and masks: one table, with errors and warnings apart."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..labels import printable

MOST = 10  # names for a problem; the rest is counted
COLUMNS = 100  # of a table and of notes


class ValidationError(ValueError):
    """All that is wrong with the files of a folder."""

    def __init__(self, report: "Report"):
        several = f"{len(report.errors)} kinds of problems in its files\n" if report.errors[1:] else ""
        super().__init__(f"{printable(report.root)}: {several}" + "\n".join(report.errors))
        self.report = report  # what was found, with these errors


def few(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


class Problems:
    """Sentences about files, each once with all files that it is true of, in the order in which they came."""

    def __init__(self, root: Path):
        self.root = root
        self.files_of: dict[str, list[tuple[Path, str]]] = {}  # {sentence: [(file, what was found in it)]}

    def add(self, sentence: str, file: Path, found: str = "") -> None:
        self.files_of.setdefault(sentence, []).append((file, found))

    def name(self, file: Path) -> str:
        """The file's path below the folder, as messages have it."""
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)

    def reasons(self) -> dict[str, list[str]]:
        """{name of a file: what is said of it, in short}."""
        reasons: dict[str, list[str]] = {}
        for sentence, files in self.files_of.items():
            for file, found in files:
                short = sentence.split(";")[0] + (f" ({found})" if found else "")
                reasons.setdefault(self.name(file), []).append(short)
        return reasons

    def lines(self) -> list[str]:
        """Lines "masks/p1.png, masks/p2.png (FOUND) and 3 more: SENTENCE", or "SENTENCE" of the folder itself."""
        lines = []
        for sentence, files in self.files_of.items():
            names: dict[str, list[str]] = {}  # by what was found in them, which is said once
            for file, found in files[:MOST]:
                names.setdefault(printable(found), []).append(printable(self.name(file)))
            groups = [", ".join(group) + (f" ({found})" if found else "") for found, group in names.items()]
            more = f" and {len(files) - MOST:,} more" if len(files) > MOST else ""
            lines.append(sentence if files[0][0] == self.root else f"{'; '.join(groups)}{more}: {sentence}")
        return lines


@dataclass
class Report:  # what was found in a folder; the names of the fields are those in prepared.json
    root: str  # the folder
    pairs: dict[str, int] = field(default_factory=dict)  # in each split
    sizes: dict[str, int] = field(default_factory=dict)  # "HEIGHTxWIDTH" of the images, upright: how many
    images: dict[str, int] = field(default_factory=dict)  # kinds of image files: how many
    masks: dict[str, int] = field(default_factory=dict)  # kinds of mask files: how many
    reading: str = ""  # how ids are found in the masks
    classes: list[tuple[int, str, float]] = field(default_factory=list)  # (id, name, share); () where no pair is left
    void: float = 0.0  # share of the pixels
    shares: dict[str, list[float]] = field(default_factory=dict)  # of classes and void in each split, where counted
    converted: dict[str, int] = field(default_factory=dict)  # what is written anew: how many
    copies: str = ""  # the folder of what was written
    errors: list[str] = field(default_factory=list)  # each must be corrected before a training
    warnings: list[str] = field(default_factory=list)  # each should be read
    warned: dict[str, list[str]] = field(default_factory=dict)  # {image file of a pair: what warnings say of the pair}

    def count(self, names: Sequence[str], pixels: dict[str, Sequence[int]]) -> None:
        """Set classes, void and shares. pixels: of each split those of the K classes, and last those of void."""
        pixels = {split: numbers for split, numbers in pixels.items() if sum(numbers)}
        pixels = {"all": [sum(column) for column in zip(*pixels.values(), strict=True)]} | pixels
        self.shares = {split: [n / max(1, sum(numbers)) for n in numbers] for split, numbers in pixels.items()}
        *shares, self.void = self.shares["all"] or [0.0] * (len(names) + 1)
        self.classes = [(k, name, share) for k, (name, share) in enumerate(zip(names, shares, strict=True))]

    def table(self, width: int = COLUMNS) -> str:
        """All of it as text, a row for each finding, in lines of so many columns."""
        pairs = ", ".join(f"{n:,} {split}" for split, n in self.pairs.items())
        pairs += "; those with errors are not counted" if pairs and self.errors else ""
        sizes = _counted({f"of {size}": n for size, n in self.sizes.items()}, " (height x width)")
        rows = [("folder", self.root), ("pairs", pairs), ("sizes", sizes)]
        rows += [("images", _counted(self.images)), ("masks", _counted(self.masks)), ("ids", self.reading)]
        if self.classes:
            done = f"; the copies are in {self.copies}, your files are as they were" if self.copies else ""
            nothing = f"nothing: training reads all {'other ' * bool(self.errors)}files as they are"
            columns = self.shares or {"all": [share for _, _, share in self.classes] + [self.void]}
            names = [(f"class {k}", name) for k, name, _ in self.classes] + [("void", "neither learned nor scored")]
            rows.append(("pixels, %", "".join(f"{split:>12}" for split in columns)))
            for (row, name), *shares in zip(names, *columns.values(), strict=True):
                rows.append((row, "".join(f"{100 * share:12.3f}" for share in shares) + f"  {name}"))
            rows.append(("converted", _counted(self.converted, done) or nothing))
        rows += [("warning", line) for line in self.warnings] + [("ERROR", line) for line in self.errors]
        return "\n".join(wrap(f"{name:<10} ", text, width) for name, text in rows if text)

    def notes(self, width: int = COLUMNS) -> str:
        """The warnings as text, in lines of so many columns."""
        return "\n".join(wrap("note: ", line, width) for line in self.warnings)


def wrap(label: str, text: str, width: int = COLUMNS) -> str:
    """The text after a label, in lines of so many columns that all begin below its first word. No name is cut."""
    begin = {"initial_indent": label, "subsequent_indent": " " * len(label)}
    return textwrap.fill(printable(text), width, **begin, break_long_words=False, break_on_hyphens=False)


def _counted(numbers: dict[str, int], end: str = "") -> str:
    """ "48 PNG of mode L, 2 GIF of mode P" and the end: the most frequent first. "" for none."""
    common = [f"{n:,} {what.replace('s (', ' (', n == 1)}" for what, n in Counter(numbers).most_common()]
    return few(common, MOST) + end * bool(numbers)
