"""What training can't read as it is, written anew beside a data set: whole or not at all, and once."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import find_changes, note_files
from ..labels import VOID
from ..locking import hold_lock, remove_partial_folders
from ..naming import named
from .examining import Examined, Need
from .layout import Item
from .opening import turn
from .polygons import Drawing, draw
from .reading import read_picture, read_values
from .report import Faults, Unfit

RECORD = "prepared.json"  # beside what was written: of which files it was made, what was found, and what was written
SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}  # nobody's work: macOS and Windows put them into folders
FORMAT = 3  # of the record and of what is written; another number makes everything anew


def read_record(folder: Path, sources: dict[str, Path] | None = None) -> dict | None:
    """The record of what was written to a folder; None if there is none or, given the sources, it is not of these."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
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
    own = {RECORD, *_copies(folder, record), *(name for name in files if name.rpartition("/")[2] in SYSTEM)}
    others = Faults(folder)
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
        (partial / RECORD).write_text(json.dumps(record, indent=0), encoding="utf-8")
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
    except Unfit as error:  # it was changed a moment ago
        raise ValueError(f"{item.image}, {item.mask_path}: {error}") from error


def _read_ids(item: Item, need: Need, examined: Examined) -> Image.Image:
    if isinstance(item.mask, Drawing):
        ids = draw(item.mask, examined.coding.names)
    else:
        values = read_values(item.mask)
        table = np.full(1 << (24 if values.dtype == np.uint32 else 16), VOID, np.uint8)
        table[list(need.ids)] = list(need.ids.values())
        ids = Image.fromarray(table[values])
    return turn(ids, need.turn)
