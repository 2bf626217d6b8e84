"""A folder of images and masks as pairs that training reads; what it can't read is converted beside the folder."""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..images import InvalidFile, read_picture, read_values, turn
from ..labels import VOID, LabelMap, Pair
from ..naming import named
from ..storage import find_changes, hold_lock, make_temporary_folder, note_files, remove_partial_folders
from .annotations import Outlines, draw
from .class_lists import ClassList, find_classes, make_labels
from .examination import Examined, Need, examine_items
from .layout import Found, Item, find_in, find_items
from .report import Problems, Report, ValidationError
from .splits import SPLITS, split_items

MANIFEST = "prepared.json"  # beside what was written: of which files it was made, what was found, and what was written
SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}  # nobody's work: macOS and Windows put them into folders
FORMAT = 3  # of the record and of what is written; another number makes everything anew


def read_record(folder: Path, sources: dict[str, Path] | None = None) -> dict | None:
    """The record of what was written to a folder; None if there is none or, given the sources, it is not of these."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        written = _copies(folder, record)
        if sources is None:
            return record
        same = record["format"] == FORMAT and all(path.is_file() for path in written.values())
        return record if same and not any(find_changes(record["sources"], sources)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _copies(folder: Path, record: dict) -> dict[str, Path]:
    return {name: folder / name for *names, _ in record["pairs"] for name in names if name}


def find_edited(folder: Path, record: dict) -> list[str]:
    """Names of the copies in a folder that are not as they were written; of an older version's, nobody knows."""
    noted = record.get("written", {})
    copies = {name: path for name, path in _copies(folder, record).items() if name in noted and path.is_file()}
    return list(find_changes({name: noted[name] for name in copies}, copies))


def _refuse_others_work(folder: Path) -> None:
    """Raises ValueError where a folder that is to be replaced holds what is not written here, or was changed since."""
    if not os.path.isdir(folder) or not any(os.scandir(folder)):
        return
    record = read_record(folder)
    if not record:
        raise ValueError(
            f"{folder}: its files are not those that are written here; move it away or delete it and run again"
        )
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    own = {MANIFEST, *_copies(folder, record), *(name for name in files if name.rpartition("/")[2] in SYSTEM)}
    others = Problems(folder)
    for name in sorted(files - own) + find_edited(folder, record):
        sentence = "not written here, or changed since, and all of the folder has to be written anew; move "
        others.add(f"{sentence}what is yours to another folder, delete this one and run again", folder / name)
    if others.files_of:
        raise ValueError(f"{folder}: {others.lines()[0]}")


def make_record(items: Sequence[Item], examined: Examined, sources: dict) -> dict:
    """All that is known of a folder, as JSON holds it; pairs: [picture and mask as written, or None; class pixels]."""
    pairs = []
    for item, need in zip(items, examined.needs, strict=True):
        split = f"{item.split}_" if item.split else ""
        image, mask = (f"{split}{kind}/{item.stem}.png" for kind in ("images", "masks"))
        counts = {str(k): number for k, number in need.counts.items()}
        pairs.append([image if need.picture else None, None if need.ids is None else mask, counts])
    coding, report = examined.coding, asdict(examined.report)
    return {
        "format": FORMAT, "sources": sources, "names": coding.names, "colors": coding.colors, "pairs": pairs,
        "report": report, "bits": examined.bits,
    }  # fmt: skip


def remove_leftovers(folder: Path) -> None:
    """Delete what a run left that was killed when the new folder was in its place, but the old one not yet deleted."""
    with contextlib.suppress(OSError):
        if any(path.name.startswith(f"{folder.name}.partial-") for path in folder.parent.iterdir()):
            with hold_lock(folder) as alone:
                if alone:
                    remove_partial_folders(folder)


def write_to_first(
    folders: Sequence[Path], items: Sequence[Item], sources: dict[str, Path], examine: Callable[[], Examined]
) -> tuple[dict, Path]:
    """(record, the folder that was written): the first that can be. Where nothing needs to be written, none has to."""
    unwritable, examined = [], None
    for folder in dict.fromkeys(folders):
        busy = f"another process is writing to {folder}: waiting for it"
        with hold_lock(folder, lambda busy=busy: print(busy, flush=True)) as alone:
            if alone:
                remove_partial_folders(folder)
            record = read_record(folder, sources)
            if record:  # by the process that was waited for
                return record, folder
            _refuse_others_work(folder)
            if examined is None:
                noted = _note(sources)  # before they are read: one that changes meanwhile is not as it was noted
                examined = examine()
            record = make_record(items, examined, noted)
            partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            except OSError as error:
                unwritable.append(f"{folder} ({error.strerror})")
                continue
            try:
                _write_whole(partial, folder, items, examined, record)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return record, folder
    if not examined.report.converted:
        return record, folders[0]
    raise ValueError(
        f"what training can't read as it is can't be written anew to {' or to '.join(unwritable)}; make one of these "
        f"writable, or copy the data to a folder of your own, set {named('DATA_DIR')} to it and run again"
    )


def _note(sources: dict[str, Path]) -> dict[str, list]:
    with contextlib.suppress(OSError):
        return note_files(sources)
    return {}  # who examines a file that can't be read says so


def _write_whole(partial: Path, folder: Path, items: Sequence[Item], examined: Examined, record: dict) -> None:
    """All that is to be written, to the folder `partial`, which then becomes `folder`."""
    names = [name for *names, _ in record["pairs"] for name in names if name]
    if names:
        print(f"{folder}: writing {len(names)} pictures and masks that training can't read as they are, once")
    try:
        for parent in {(partial / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = zip(items, examined.needs, record["pairs"], strict=True)
            list(pool.map(lambda job: _write_pair(partial, *job, examined), jobs))
        record["written"] = note_files({name: partial / name for name in names})
        (partial / MANIFEST).write_text(json.dumps(record, indent=0), encoding="utf-8")
        old = folder.with_name(f"{folder.name}.partial-{os.getpid()}0")  # goes with the next run if this one is killed
        if os.path.isdir(folder):
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: its {len(names)} pictures and masks can't be written ({error.strerror or error}); make room, "
            f"or copy the data to a folder on another disk, set {named('DATA_DIR')} to it and run again"
        ) from None


def _write_pair(folder: Path, item: Item, need: Need, names: list, examined: Examined) -> None:
    image, mask, _ = names
    try:
        if image:
            read_picture(item.image, examined.bits or 8).save(folder / image, compress_level=1)
        if mask:
            _read_ids(item, need, examined).save(folder / mask, compress_level=1)
    except InvalidFile as error:  # it was changed a moment ago
        raise ValueError(f"{item.image}, {item.mask_path}: {error}") from error


def _read_ids(item: Item, need: Need, examined: Examined) -> Image.Image:
    if isinstance(item.mask, Outlines):
        ids = draw(item.mask, examined.coding.names)
    else:
        values = read_values(item.mask)
        table = np.full(1 << (24 if values.dtype == np.uint32 else 16), VOID, np.uint8)
        table[list(need.ids)] = list(need.ids.values())
        ids = Image.fromarray(table[values])
    return turn(ids, need.turn)


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
    Raises ValueError, naming the files, what was found, expected and what to do next; ValidationError, one of its
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
    except ValidationError as faulty:
        good = _places_of_good(found) if skip_bad else []
        if not good:
            raise
        report = faulty.report
    found = found._replace(items=[found.items[k] for k in good], errors=Problems(root))
    try:
        prepared = prepare(found, [splits[k] for k in good], [_make_temporary()])
    except ValueError as error:  # the others have faults together, or can't be written
        report.errors += error.report.errors if isinstance(error, ValidationError) else [str(error)]
        raise ValidationError(report) from None
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
        if examined.report.errors:
            raise ValidationError(examined.report)
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
    pairs, seen = {name: [] for name in SPLITS}, set()
    for item, (image, mask, counts), split in zip(found.items, record["pairs"], splits, strict=True):
        if split:
            image, mask = folder / image if image else item.image, folder / mask if mask else item.mask_path
            pairs[split].append(Pair(image, mask))
        if split == "train":
            seen |= counts.keys()
    report.root, report.classes = str(found.errors.root), [tuple(row) for row in report.classes]
    report.copies = str(folder) if report.converted and folder != found.errors.root else ""
    report.pairs = {name: len(pairs[name]) for name in SPLITS}
    absent = [name for k, name, share in report.classes if share and str(k) not in seen]
    report.warnings = found.warnings.lines() + report.warnings
    report.warnings += [f"class {name!r} occurs in no training mask, so it can't be learned" for name in absent]
    return Prepared(labels, *(tuple(pairs[name]) for name in SPLITS), report, record["bits"])
