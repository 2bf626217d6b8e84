"""A folder of pictures and masks of any kind -> pairs that training reads, written once beside it, or not at all."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..labels import LabelMap, Pair
from .classes import ClassList, find_classes, make_labels
from .examining import Examined, examine_items
from .layout import Found, Item, find_in, find_items
from .report import Report
from .splits import NAMES, split_items
from .writing import make_record, read_record, remove_leftovers, write_to_first


@dataclass(frozen=True)
class Prepared:
    """Pairs of files that training reads, in three disjoint lists, what their ids mean, and what was found.

    Pictures: what TensorFlow decodes to 8-bit RGB. Masks: ids 0..K-1 in one channel or red, 255 = void. test may be
    empty.
    """

    labels: LabelMap
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    report: Report


def prepare_folder(root: str | Path, *targets: str | Path, split_by: str | None = None) -> Prepared:
    """The pairs of a reader's own folder; see data/README.md for what it may hold.

    What training can't read as it is, is written to the first of the targets where one may write, whole or not at all,
    and once: again only if a file of the folder has changed. Nothing is written to the folder itself.
    targets: folders outside root; others are passed over. Without one, it is "NAME.prepared" beside root. What an older
        preparation has written there is replaced; what anybody else has, is not.
    split_by: regular expression for the group (drive, patient, film) in the stems of the pictures; see `split_items`.
    Raises ValueError, naming the files, what was found, what was expected and what to do next.
    """
    root = Path(root)
    classes = find_classes(root)
    return _prepare(root, find_items(root), classes, targets, split_by)


def prepare_pairs(
    root: str | Path, folders: dict[str, tuple[Path, Path]], classes: ClassList, *targets: str | Path
) -> Prepared:
    """`prepare_folder` for a data set of known layout: {split: (folder of pictures, folder of masks)} below root."""
    root = Path(root)
    return _prepare(root, find_in(root, folders), classes, targets, None)


def places_for(root: str | Path, elsewhere: str | Path) -> tuple[Path, Path]:
    """Two targets: "NAME.prepared" beside root and, where one may only read there, one in the folder elsewhere, whose
    name no data set in another place gets."""
    root = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    return root.with_name(f"{root.name}.prepared"), Path(elsewhere) / f"{root.name}-{place}.prepared"


def examine_folder(root: str | Path, split_by: str | None = None) -> Report:
    """What `prepare_folder` would find. Nothing is written, and errors are in the report.

    Raises ValueError where there is no such folder, or its list of classes can't be understood.
    """
    root = Path(root)
    classes, found = find_classes(root), find_items(root)
    splits = split_items(root, found.items, split_by, found.errors, found.warnings)
    examined = examine_items(root, found.items, classes, found.labels, found.errors)
    if examined.report.errors:
        return examined.report
    return _finish(found, make_record(found.items, examined, {}), root, splits).report


def _prepare(root: Path, found: Found, classes: ClassList | None, targets: Sequence, split_by: str | None) -> Prepared:
    splits = split_items(root, found.items, split_by, found.errors, found.warnings)

    def examine() -> Examined:
        examined = examine_items(root, found.items, classes, found.labels, found.errors)
        examined.report.raise_errors()
        return examined

    if found.errors.files_of:
        examine()  # raises, and names the faults of the files, too
    folders = [Path(target) for target in targets or places_for(root, root)[:1]]
    outside = [folder for folder in folders if not folder.resolve().is_relative_to(root.resolve())]
    if not outside:
        raise ValueError(f"{folders[0]}: it is in {root}, where nothing is written; give a folder outside")
    sources = _list_sources(root, found.items, classes)
    for folder in outside:
        record = read_record(folder, sources)
        if record:
            remove_leftovers(folder)
            return _finish(found, record, folder, splits)
    return _finish(found, *write_to_first(outside, found.items, sources, examine), splits)


def _list_sources(root: Path, items: Sequence[Item], classes: ClassList | None) -> dict[str, list[int]]:
    """{name: [bytes, time of the last change in nanoseconds]} of all files that decide what is written."""
    paths = {path for item in items for path in (item.image, item.mask_path)} | ({classes.path} if classes else set())
    try:
        stats = {os.path.relpath(path, root): path.stat() for path in sorted(paths)}
    except OSError as error:
        raise ValueError(f"{error.filename}: can't be read ({error.strerror}); get it again or remove it") from None
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _finish(found: Found, record: dict, folder: Path, splits: Sequence[str | None]) -> Prepared:
    """The pairs of a record, split, with a warning for each class that training does not see."""
    colors = tuple(map(tuple, record["colors"]))
    labels, report = make_labels(tuple(record["names"]), colors), Report(**record["report"])
    pairs, seen = {name: [] for name in NAMES}, set()
    for item, (image, mask, counts), split in zip(found.items, record["pairs"], splits, strict=True):
        if split:
            image, mask = folder / image if image else item.image, folder / mask if mask else item.mask_path
            pairs[split].append(Pair(image, mask))
        if split == "train":
            seen |= counts.keys()
    report.root, report.classes = str(found.errors.root), [tuple(row) for row in report.classes]
    report.pairs = {name: len(pairs[name]) for name in NAMES}
    absent = [name for k, name, share in report.classes if share and str(k) not in seen]
    report.warnings = found.warnings.lines() + report.warnings
    report.warnings += [f"class {name!r} occurs in no training mask, so it can't be learned" for name in absent]
    return Prepared(labels, *(tuple(pairs[name]) for name in NAMES), report)
