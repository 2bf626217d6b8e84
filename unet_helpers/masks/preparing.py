"""A folder of pictures and masks of any kind -> pairs that training reads, written once beside it, or not at all."""

import atexit
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..labels import LabelMap, Pair
from ..locking import make_temporary_folder
from .classes import ClassList, find_classes, make_labels
from .examining import Examined, examine_items
from .layout import Found, Item, find_in, find_items
from .report import Faults, FaultyFiles, Report
from .splits import NAMES, split_items
from .writing import find_edited, make_record, read_record, remove_leftovers, write_to_first


@dataclass(frozen=True)
class Prepared:
    """Pairs of files that training reads, in three disjoint lists, what their ids mean, what was found, and how many
    bits of 16-bit pictures are in use, None where there are no such pictures.

    Pictures: what TensorFlow decodes to 8-bit RGB. Masks: ids 0..K-1 in one channel or red, 255 = void. test may be
    empty.
    """

    labels: LabelMap
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    report: Report
    bits: int | None


def prepare_folder(
    root: str | Path, *targets: str | Path, split_by: str | None = None, skip_bad: bool = False, bits: int | None = None
) -> Prepared:
    """The pairs of a reader's own folder; see data/README.md for what it may hold.

    What training can't read as it is, is written to the first of the targets where one may write, whole or not at all,
    and once: again only if the content of a file of the folder has changed. Nothing is written to the folder itself.
    targets: folders outside root; others are passed over. Without one, it is "NAME.prepared" beside root. What an older
        preparation has written there is replaced; what anybody else has, is not: what has been added or changed there
        since is an error if it stands in the way, and changed copies that are used get a warning.
    split_by: regular expression for the group (drive, patient, film) in the stems of the pictures; see `split_items`.
    skip_bad: leave out the pairs whose files are faulty, if others are left, and name them in the report's errors. No
        pair changes its split by that. What has to be written then goes to a temporary folder of this process.
    bits: of 16-bit pictures, how many a network was trained with. Where they are not as many as those in use here, what
        it has to see goes to a temporary folder, too, and the targets hold what a training on this folder would read.
    Raises ValueError, naming the files, what was found, what was expected and what to do next; FaultyFiles, one of its
    kinds, also has the report.
    """
    root = Path(root)
    classes = find_classes(root)
    return _prepare(root, find_items(root), classes, targets, split_by, skip_bad, bits)


def prepare_pairs(
    root: str | Path, folders: dict[str, tuple[Path, Path]], classes: ClassList, *targets: str | Path,
    skip_bad: bool = False,
) -> Prepared:  # fmt: skip
    """`prepare_folder` for a data set of known layout: {split: (folder of pictures, folder of masks)} below root."""
    root = Path(root)
    return _prepare(root, find_in(root, folders), classes, targets, None, skip_bad)


def places_for(root: str | Path, elsewhere: str | Path) -> tuple[Path, Path]:
    """Two targets: "NAME.prepared" beside root and, where one may only read there, one in the folder elsewhere, whose
    name no data set in another place gets."""
    root = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    return root.with_name(f"{root.name}.prepared"), Path(elsewhere) / f"{root.name}-{place}.prepared"


def examine_folder(root: str | Path, split_by: str | None = None) -> Report:
    """What `prepare_folder` would find. Nothing is written, and errors are in the report.

    Raises ValueError where there is no such folder, or its list of classes can't be understood.
    """
    root = Path(root)
    classes, found = find_classes(root), find_items(root)
    splits = _split(root, found, split_by)
    examined = examine_items(root, found.items, classes, found.labels, found.errors)
    if examined.report.errors:
        return examined.report
    return _finish(found, make_record(found.items, examined, {}), root, splits).report


def _prepare(
    root: Path, found: Found, classes: ClassList | None, targets: Sequence, split_by: str | None, skip_bad: bool,
    bits: int | None = None,
) -> Prepared:  # fmt: skip
    n_faults = len(found.errors.files_of)
    splits = _split(root, found, split_by)
    skip_bad = skip_bad and len(found.errors.files_of) == n_faults  # what is wrong with a split is not so with one file

    def prepare(found: Found, splits: Sequence[str | None], targets: Sequence) -> Prepared:
        prepared = _prepare_all(root, found, splits, classes, targets)
        if bits and prepared.bits not in (None, bits):
            prepared = _prepare_all(root, found, splits, classes, [_make_temporary()], bits)
        return prepared

    try:
        return prepare(found, splits, targets)
    except FaultyFiles as faulty:
        good = _places_of_good(found) if skip_bad else []
        if not good:
            raise
        report = faulty.report
    found = found._replace(items=[found.items[k] for k in good], errors=Faults(root))
    try:
        prepared = prepare(found, [splits[k] for k in good], [_make_temporary()])
    except ValueError as error:  # the others have faults together, or can't be written
        report.errors += error.report.errors if isinstance(error, FaultyFiles) else [str(error)]
        raise FaultyFiles(report) from None
    prepared.report.errors, prepared.report.copies = report.errors, ""
    return prepared


def _make_temporary() -> Path:
    folder, delete = make_temporary_folder("unet_prepared_")
    atexit.register(delete)
    return folder / "prepared"


def _split(root: Path, found: Found, split_by: str | None) -> list[str | None]:
    """`split_items`. Files without a partner keep their places: else each would move the pairs behind it, and what was
    learned could come to the test."""
    folders = {path.parent: item.split for item in found.items for path in (item.image, item.mask_path)}
    pairs = {path.with_suffix("") for item in found.items for path in (item.image, item.mask_path)}
    faulty = {file for faults in found.errors.files_of.values() for file, _ in faults if file.parent in folders}
    lonely = [file for file in sorted(faulty) if file.with_suffix("") not in pairs]
    items = found.items + [Item(file.stem, folders[file.parent], file, file) for file in lonely]
    return split_items(root, items, split_by, found.errors, found.warnings)[: len(found.items)]


def _places_of_good(found: Found) -> list[int]:
    """Places of the items whose files have no fault; none where a fault is not one of single files."""
    files = {file for faults in found.errors.files_of.values() for file, _ in faults}
    if any(os.path.isdir(file) for file in files):
        return []
    bad = {file.with_suffix("") for file in files}  # of two files with one stem, nobody knows which is right
    stems = [{path.with_suffix("") for path in (item.image, item.mask_path)} for item in found.items]
    return [k for k, both in enumerate(stems) if not both & bad]


def _prepare_all(
    root: Path, found: Found, splits: Sequence[str | None], classes: ClassList | None, targets: Sequence,
    bits: int | None = None,
) -> Prepared:  # fmt: skip
    def examine() -> Examined:
        examined = examine_items(root, found.items, classes, found.labels, found.errors)
        examined.report.raise_errors()
        return examined._replace(bits=bits) if bits else examined

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
            for name in find_edited(folder, record):
                sentence = "changed since it was written here, and read as it is; delete the folder to have it anew"
                found.warnings.add(sentence, folder / name)
            return _finish(found, record, folder, splits)
    return _finish(found, *write_to_first(outside, found.items, sources, examine), splits)


def _list_sources(root: Path, items: Sequence[Item], classes: ClassList | None) -> dict[str, Path]:
    """{name: file} of all files that decide what is written."""
    paths = {path for item in items for path in (item.image, item.mask_path)} | ({classes.path} if classes else set())
    return {os.path.relpath(path, root): path for path in sorted(paths)}


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
    report.copies = str(folder) if report.converted and folder != found.errors.root else ""
    report.pairs = {name: len(pairs[name]) for name in NAMES}
    absent = [name for k, name, share in report.classes if share and str(k) not in seen]
    report.warnings = found.warnings.lines() + report.warnings
    report.warnings += [f"class {name!r} occurs in no training mask, so it can't be learned" for name in absent]
    return Prepared(labels, *(tuple(pairs[name]) for name in NAMES), report, record["bits"])
