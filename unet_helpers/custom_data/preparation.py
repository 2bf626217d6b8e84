"""A folder of images and masks as pairs that training reads: examined, and, where it can't read them, converted."""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .. import storage
from ..images import ImageInfo, InvalidFile, MaskInfo, decode_image, examine_image, examine_mask, read_values, turn
from ..labels import SPLITS, VOID, LabelMap, Pair, printable
from ..naming import counted, named
from .annotations import Outlines, draw
from .class_lists import ClassList, find_classes, make_labels
from .encoding import Encoding, decide
from .layout import Found, Item, find_in, find_items, split_items
from .report import MOST, Problems, Report, ValidationError, few

MANIFEST = "prepared.json"  # beside the copies: of which files they were made, what was found, and what was written
SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}  # macOS and Windows put them into folders
MANIFEST_FORMAT = 5  # of the record and the copies; another number makes everything anew
SIZES = "a mask and its image need the same height x width; make the mask again in the image's size"
UPSIDE_DOWN = "its EXIF data turn it, and its size does not tell whether its mask is turned, too; "
UPSIDE_DOWN += "the mask is taken as upright: look at this pair"
TRANSPARENT = "parts of it are transparent, and what is there counts all the same; if it should not, save it opaque"


@dataclass(frozen=True)
class Prepared:  # pairs of files that training reads, in three disjoint lists
    labels: LabelMap
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]  # may be empty
    report: Report
    bits: int | None  # in use, of 16-bit images; None: there are none
    # {pair: (`storage.note_files` of its "image" and "mask" as they were examined, {class id or VOID: pixels})}
    counts: dict[Pair, tuple[dict[str, list], dict[int, int]]]


def prepare_folder(
    root: str | Path, *targets: str | Path, folders: dict[str, tuple[Path, Path]] | None = None,
    classes: ClassList | None = None, split_by: str | None = None, skip_bad: bool = False, bits: int | None = None,
    to_train: bool = True,
) -> Prepared:  # fmt: skip
    """The pairs of a reader's own folder; see data/README.md for what it may hold.
    Masks that are no plain class ids and grey 16-bit images are converted: copies are written to the first of the
    targets that can be written to, whole or not at all, and again only if the content of a file has changed.
    targets: folders outside root, by default "NAME.prepared" beside it; files added or changed there are an error.
    folders, classes: where they are known: {split: (folder of images, folder of masks)} below root, and the list.
    split_by: regular expression for the group (drive, patient, sequence) in the images' stems; see `split_items`.
    skip_bad: leave out the pairs with invalid files, if others are left, and name them in the report's errors; no pair
        changes its split. Copies then go to a temporary folder.
    bits: in use in the grey 16-bit images that a network was trained with; other copies go to a temporary folder, too.
    to_train: False for pairs that are only scored: any number will do, and none has to be for training.
    Raises ValidationError, which has the report, or another ValueError."""
    root = Path(root)
    classes, found = classes or find_classes(root), find_in(root, folders) if folders else find_items(root)
    places = [Path(target) for target in targets or places_for(root, root)[:1]]
    outside = [folder for folder in places if not folder.resolve().is_relative_to(root.resolve())]
    if not outside:
        raise ValueError(f"{places[0]}: it is in {root}, where nothing is written; give a folder outside")
    n_problems = len(found.errors.files_of)
    splits = split_items(found, split_by, to_train)
    skip_bad = skip_bad and len(found.errors.files_of) == n_problems  # what is wrong with a split is no single file's
    try:
        return _prepare_items(found, splits, classes, outside, bits)
    except ValidationError as error:
        report, files = error.report, {file for said in found.errors.files_of.values() for file, _ in said}
        bad = {file.with_suffix("") for file in files}  # of two files with one stem, either may be right
        good = [k for k, item in enumerate(found.items) if bad.isdisjoint(path.with_suffix("") for path in item.files)]
        if not skip_bad or not good or any(map(os.path.isdir, files)):
            raise
    found = found._replace(items=[found.items[k] for k in good], errors=Problems(root))
    try:
        prepared = _prepare_items(found, [splits[k] for k in good], classes, [_make_temporary()], bits)
    except ValueError:  # the others have problems together, or can't be written: said when these are corrected
        raise ValidationError(report) from None
    prepared.report.errors, prepared.report.copies = report.errors, ""
    return prepared


def places_for(root: str | Path, elsewhere: str | Path) -> tuple[Path, Path]:
    """Two targets: "NAME.prepared" beside root and, if that can't be written, a folder in elsewhere for root alone."""
    root = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    return root.parent / f"{root.name}.prepared", Path(elsewhere) / f"{root.name}-{place}.prepared"


def _prepare_items(found: Found, splits: Sequence, classes: ClassList | None, folders: list[Path], bits) -> Prepared:
    examine = functools.partial(examine_items, found, classes)
    if found.errors.files_of:
        examine()  # raises, and names the problems of the files, too
    root, items = found.errors.root, found.items
    sources = {path for item in items for path in item.files} | ({classes.path} if classes else set())
    sources = {os.path.relpath(path, root): path for path in sorted(sources)}
    record, folder = _find_or_convert(folders, items, sources, examine)
    if bits and record["bits"] not in (None, bits):
        record, folder = _find_or_convert([_make_temporary()], items, sources, lambda: examine()._replace(bits=bits))
    return _finish(found, splits, record, folder)


def _make_temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="unet_prepared_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "prepared"


def _finish(found: Found, splits: Sequence[str | None], record: dict, folder: Path) -> Prepared:
    """The pairs of a record, split, with a warning for each class that training does not see."""
    root = found.errors.root
    labels = make_labels(tuple(record["names"]), tuple(map(tuple, record["colors"])))
    report = Report(**record["report"])
    reasons, report.warned = found.warnings.reasons() | report.warned, {}
    notes = {root / name: note for name, note in record["sources"].items()}
    notes |= {folder / name: note for name, note in record["written"].items()}
    pairs, learned, counts = {name: [] for name in SPLITS}, set(), {}
    for item, (image, mask, numbers), split in zip(found.items, record["pairs"], splits, strict=True):
        pair = Pair(folder / image if image else item.image, folder / mask if mask else item.mask_path)
        if split:
            pairs[split].append(pair)
            learned |= numbers.keys() if split == "train" else set()
            if said := [reason for file in item.files for reason in reasons.get(found.errors.name(file), ())]:
                report.warned[str(pair.image)] = said
            own = {name: notes[path] for name, path in pair._asdict().items() if path in notes}
            counts[pair] = own, {int(k): number for k, number in numbers.items()}
    report.root, report.classes = str(root), [tuple(row) for row in report.classes]
    report.copies = str(folder) if report.converted and folder != root else ""
    report.pairs = {name: len(pairs[name]) for name in SPLITS}
    absent = [name for k, name, share in report.classes if share and str(k) not in learned and pairs["train"]]
    report.warnings = found.warnings.lines() + report.warnings
    report.warnings += [f"class {name!r} occurs in no training mask, so it can't be learned" for name in absent]
    return Prepared(labels, *(tuple(pairs[name]) for name in SPLITS), report, record["bits"], counts)


class Need(NamedTuple):  # of a pair, before training reads it
    image: bool  # whether the image is converted: it has 16 bits
    ids: dict[int, int] | None  # {value in the mask: class id or VOID}; None: the mask is read as it is
    turn: int  # EXIF's orientation by which the mask is turned along with its image; 1: none
    counts: dict[int, int]  # {class id or VOID: pixels}


class Examined(NamedTuple):
    needs: list[Need]  # of the items, in their order
    bits: int | None  # in use, of grey 16-bit images; None: there are none
    encoding: Encoding
    report: Report


class _Look(NamedTuple):
    item: Item
    image: ImageInfo | None  # None: the file is invalid
    mask: MaskInfo | None  # None: the file is invalid
    problems: list[tuple[str, Path, str]]  # as `Problems.add` takes them


def examine_items(found: Found, classes: ClassList | None) -> Examined:
    """Decode each file once, on all cores, and find out what all of them together need.
    Raises ValidationError with the errors of the files, and those that were known before."""
    errors, warnings = found.errors, Problems(found.errors.root)
    names = classes.names if classes else found.labels  # of outlines
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda item: _look_at(item, names), found.items))
    for problem in (problem for look in looks for problem in look.problems):
        errors.add(*problem)
    encoding = _find_encoding(looks, classes, names, errors, warnings)
    for item, image, mask, _ in looks:
        if image and mask and image.orientation > 1 and image.stored == image.size:
            warnings.add(UPSIDE_DOWN, item.image)
        if mask and mask.transparent:
            warnings.add(TRANSPARENT, item.mask_path)
        if image and image.more_frames:
            warnings.add("it holds more than one image, and only the first is used; save others as files", item.image)
    images = [look.image for look in looks if look.image]
    sizes = Counter("{}x{}".format(*image.size) for image in images)
    kinds = Counter(image.kind for image in images), Counter(look.mask.kind for look in looks if look.mask)
    report = Report(str(errors.root), {}, dict(sizes), *map(dict, kinds), encoding.says if encoding else "")
    bits = max((image.bits for image in images if image.bits), default=None)
    needs = []
    if encoding and not errors.files_of:
        needs = [_need(look, encoding) for look in looks]
        _count_pixels(needs, encoding, report, errors, warnings)
        converted = [f"images ({image.kind}; {bits} of 16 bits used)" for image in images if image.bits]
        converted += [f"masks ({look.mask.kind})" for need, look in zip(needs, looks, strict=True) if need.ids]
        report.converted = dict(Counter(converted))
    report.errors, report.warnings, report.warned = errors.lines(), warnings.lines(), warnings.reasons()
    if report.errors:
        raise ValidationError(report)
    return Examined(needs, bits, encoding, report)


def _look_at(item: Item, names: tuple[str, ...]) -> _Look:
    image, mask, problems = None, None, []
    outlines = item.mask if isinstance(item.mask, Outlines) else None
    try:
        image = examine_image(item.image)
    except InvalidFile as error:
        problems.append((str(error), item.image, error.found))
    try:
        mask = None if outlines else examine_mask(item.mask)
        size = outlines.size if outlines else mask.size
        if image and size not in (image.stored, image.size):
            raise InvalidFile(SIZES, "{}x{}, its image {}x{}".format(*size, *image.size))
        if image and outlines:  # else they may be of any size
            counts = {k: n for k, n in enumerate(draw(outlines, names).histogram()) if n}
            mask = MaskInfo("outlines in JSON", size, "grey", counts, {}, False)
    except InvalidFile as error:
        found = f"{outlines.path.name}: {error.found}" if outlines else error.found  # which may be of many images
        problems.append((str(error), item.image if outlines else item.mask, found))
    return _Look(item, image, mask, problems)


def _find_encoding(looks: list[_Look], classes, names, errors: Problems, warnings: Problems) -> Encoding | None:
    files = [look.item.mask_path for look in looks if not isinstance(look.item.mask, Outlines)]
    if files and len(files) < len(looks):
        errors.add("it is an image, but other masks are outlines in JSON; make all of one kind", files[0])
        return None
    if looks and not files:
        ids = {k: k for k in (*range(len(names)), VOID)}
        meanings = {look.item.mask_path: ids for look in looks}
        colors = classes.colors if classes else ()
        return Encoding(meanings, ids, names, colors, "outlines, drawn in the order of their file")
    masks = {look.item.mask_path: look.mask for look in looks if look.mask}
    return decide(masks, classes, errors, warnings) if masks else None


def _need(look: _Look, encoding: Encoding) -> Need:
    """A mask of the stored size is turned with its image: what decodes images without their EXIF data has made it."""
    _, image, mask, _ = look
    counts, turn = Counter(), image.orientation if mask.size == image.stored != image.size else 1
    ids = {value: encoding.ids.get(meant, VOID) for value, meant in encoding.meanings[look.item.mask_path].items()}
    for value, number in mask.counts.items():
        counts[ids[value]] += number
    shift = 16 if mask.values == "color" else 0  # `images.decode_mask` reads ids in one channel or in red
    kept = turn == 1 and mask.plain and all(value == k << shift for value, k in ids.items())
    return Need(image.bits is not None, None if kept else ids, turn, dict(counts))


def _count_pixels(needs, encoding: Encoding, report: Report, errors: Problems, warnings: Problems) -> None:
    counts = sum((Counter(need.counts) for need in needs), Counter())
    total = max(counts.total(), 1)
    report.classes = [(k, name, counts[k] / total) for k, name in enumerate(encoding.names)]
    report.void = counts[VOID] / total
    present = [repr(name) for k, name in enumerate(encoding.names) if counts[k]]
    absent = [repr(name) for k, name in enumerate(encoding.names) if not counts[k]]
    if len(present) < 2:
        what = " and ".join(present + ["void"] * bool(counts[VOID]))
        errors.add(
            f"all masks hold only {what} ({encoding.says}), expected two classes at least; label the others, or, if 0 "
            "and 255 are two classes, give the list two names, or, if ids were lost when the masks were saved, save "
            "them again as 8-bit PNG with ids 0, 1, 2 ...", errors.root,
        )  # fmt: skip
    elif absent:
        without = f"classes without a pixel in any mask, {len(absent)} of {len(encoding.names)}"
        warnings.add(f"{without}: {few(absent, MOST)}", warnings.root)


def _make_record(items: Sequence[Item], examined: Examined, sources: dict) -> dict:
    """All that is known of a folder, as JSON holds it; pairs: [image and mask as written, or None; class pixels]."""
    pairs = []
    for item, need in zip(items, examined.needs, strict=True):
        split = f"{item.split}_" if item.split else ""
        image, mask = (f"{split}{kind}/{item.stem}.png" for kind in ("images", "masks"))
        counts = {str(k): number for k, number in need.counts.items()}
        pairs.append([image if need.image else None, None if need.ids is None else mask, counts])
    return {
        "format": MANIFEST_FORMAT, "sources": sources,
        "names": examined.encoding.names, "colors": examined.encoding.colors,
        "pairs": pairs, "report": asdict(examined.report), "bits": examined.bits, "written": {},
    }  # fmt: skip


def _read_record(folder: Path, sources: dict[str, Path]) -> dict | None:
    """The record of a folder; None if it is not of these sources as they are now, or a copy is gone or changed."""
    record = storage.read_json(folder / MANIFEST)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        written = {name: folder / name for name in record["written"]}
        changed = [*storage.find_changes(record["sources"], sources), *storage.find_changes(record["written"], written)]
        return record if record["format"] == MANIFEST_FORMAT and not changed else None
    return None


def _refuse_others_work(folder: Path) -> None:
    """Raises ValueError where a folder that is to be replaced holds what is not written here, or was changed since."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    there = sorted(name for name in there - {MANIFEST} if Path(name).name not in SYSTEM)
    record = storage.read_json(folder / MANIFEST)
    written = record.get("written", {}) if isinstance(record, dict) else {}
    copies = {name: folder / name for name in there if name in written}
    others = [name for name in there if name not in written]
    others += storage.find_changes({name: written[name] for name in copies}, copies)
    if others:
        found = f"{printable(few(others, MOST))}: not written here, or changed since, and all of the folder has to be"
        todo = "move what is yours to another folder, delete this one and run again"
        raise ValueError(f"{folder}: {found} written anew; {todo}")


def _find_or_convert(folders: list[Path], items: Sequence[Item], sources: dict, examine) -> tuple[dict, Path]:
    """(record, folder): of the first folder that has one of these files; else examine the items and write what has to
    be converted to the first folder that can be written to. Where nothing has to be converted, no folder has to be."""
    for folder in folders:
        if record := _read_record(folder, sources):
            return record, folder
    unwritable, noted = [], {}
    with contextlib.suppress(OSError):  # said when the file is examined
        noted = storage.note_files(sources)  # before they are read, as one may change meanwhile
    examined = examine()
    record = _make_record(items, examined, noted)
    for folder in dict.fromkeys(folders):
        busy = f"another process is writing to {folder}: waiting for it"
        with storage.hold_lock(folder, lambda busy=busy: print(busy, flush=True)) as alone:
            if alone:
                storage.remove_partial_folders(folder)
            if theirs := _read_record(folder, sources):  # by the process that was waited for
                return theirs, folder
            _refuse_others_work(folder)
            old = folder.with_name(f"{folder.name}.partial-{os.getpid()}0")  # goes with the next run if this is killed
            try:
                with storage.write_folder(folder) as partial:
                    _write_whole(partial, folder, items, examined, record)
                    if os.path.isdir(folder):
                        os.replace(folder, old)
                shutil.rmtree(old, ignore_errors=True)
                return record, folder
            except OSError as error:
                unwritable.append(f"{folder} ({error.strerror or error})")
    if not examined.report.converted:
        return record, folders[0]
    found = f"what training can't read as it is can't be written anew to {' or to '.join(unwritable)}"
    other = f"copy the data to a folder of your own, set {named('DATA_DIR')} to it and run again"
    raise ValueError(f"{found}; make one of these writable, or make room, or {other}")


def _write_whole(partial: Path, folder: Path, items: Sequence[Item], examined: Examined, record: dict) -> None:
    """Write copies and record to the folder `partial`, which then becomes `folder`."""
    copies = {name: partial / name for *names, _ in record["pairs"] for name in names if name}
    if copies:
        print(f"{folder}: converting {counted(len(copies), 'file')} for training, once")
    for parent in {path.parent for path in copies.values()}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = zip(items, examined.needs, record["pairs"], strict=True)
        list(pool.map(lambda job: _write_pair(partial, *job, examined), jobs))
    record["written"] = storage.note_files(copies)
    (partial / MANIFEST).write_text(json.dumps(record, indent=0), encoding="utf-8", newline="\n")


def _write_pair(folder: Path, item: Item, need: Need, names: list, examined: Examined) -> None:
    image, mask, _ = names
    if image:
        Image.fromarray(decode_image(item.image, examined.bits)).save(folder / image, compress_level=1)
    if mask and isinstance(item.mask, Outlines):
        ids = np.asarray(draw(item.mask, examined.encoding.names))
    elif mask:
        values = read_values(item.mask)
        table = np.full(1 << (24 if values.dtype == np.uint32 else 16), VOID, np.uint8)
        table[list(need.ids)] = list(need.ids.values())
        ids = table[values]
    if mask:
        Image.fromarray(turn(ids, need.turn)).save(folder / mask, compress_level=1)
