"""What was found in a folder of pictures and masks: one table, with errors and warnings apart."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MOST = 10  # names for a fault; the rest is counted


class Unfit(ValueError):
    """What is wrong with a file: a sentence for all such files, what was expected and what to do, and what was found in
    this one. `Faults` adds the file's name."""

    def __init__(self, sentence: str, found: str = ""):
        super().__init__(sentence)
        self.found = found


class Faults:
    """Sentences about files, each once with all files that it is true of, in the order in which they came."""

    def __init__(self, root: Path):
        self.root, self.files_of = root, {}

    def add(self, sentence: str, file: Path, found: str = "") -> None:
        self.files_of.setdefault(sentence, []).append((file, found))

    def lines(self) -> list[str]:
        """Lines "masks/p1.png (FOUND), masks/p2.png (FOUND) and 3 more: SENTENCE", names relative to the folder, whose
        own is left out."""
        return [
            sentence if files[0][0] == self.root else f"{self._names(files)}: {sentence}"
            for sentence, files in self.files_of.items()
        ]

    def _names(self, files: list[tuple[Path, str]]) -> str:
        names = [
            (file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file))
            + (f" ({found})" if found else "")
            for file, found in files[:MOST]
        ]
        return ", ".join(names) + (f" and {len(files) - MOST:,} more" if len(files) > MOST else "")


@dataclass
class Report:
    """root: the folder. pairs: in each split. sizes: "HEIGHTxWIDTH" of the pictures, upright, and how many there are.
    pictures, masks: kinds of files. reading: how ids are found in the masks. classes: (id, name, share of the pixels),
    none where there are errors. void: its share. converted: what is written anew, and how often. errors: each
    must be mended before a training. warnings: each should be read.
    """

    root: str
    pairs: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)
    reading: str = ""
    classes: list[tuple[int, str, float]] = field(default_factory=list)
    void: float = 0.0
    converted: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def table(self) -> str:
        """All of it as text, a line for each finding."""
        rows = [("folder", self.root), ("pairs", _counted(self.pairs)), ("sizes", _counted(self.sizes))]
        rows += [("pictures", _counted(self.pictures)), ("masks", _counted(self.masks)), ("ids", self.reading)]
        rows += [(f"class {k}", f"{100 * share:7.3f} %  {name}") for k, name, share in self.classes]
        rows += [("void", f"{100 * self.void:7.3f} %")] * bool(self.classes)
        rows += [("converted", _counted(self.converted) or "nothing")]
        rows += [("warning", line) for line in self.warnings] + [("ERROR", line) for line in self.errors]
        return "\n".join(f"{name:<10} {text}" for name, text in rows if text)

    def raise_errors(self) -> None:
        """Raises ValueError with all errors, a line each, if there are any."""
        if self.errors:
            many = f"{self.root}: {len(self.errors)} kinds of faults in its files"
            raise ValueError("\n".join([many, *self.errors] if self.errors[1:] else [f"{self.root}: {self.errors[0]}"]))


def _counted(numbers: dict[str, int]) -> str:
    """ "48 PNG of mode L, 2 GIF of mode P": the commonest first."""
    common = Counter(numbers).most_common(MOST)
    more = [f"{sum(numbers.values()) - sum(n for _, n in common):,} of other kinds"] * (len(numbers) > MOST)
    return ", ".join([f"{n:,} {what}" for what, n in common] + more)
