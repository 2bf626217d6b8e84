"""Which record in COCO's files is a picture's own: by its stem and, where several have it, by folder or split."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from .coco import Coco
from .report import Unfit

SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
SEVERAL = "several outlines have its name, and neither folders nor splits tell which are its own; keep one of them"
SHARED = (
    "pictures in several folders have this name, and nothing tells whose the outlines are; write the folder into their "
    "file_name, or give each folder a file of its own, such as instances_train.json and instances_val.json"
)


class Record(NamedTuple):
    """A picture in a COCO file. name: its file_name. split: the one that it or its file names, or None."""

    coco: Coco
    number: int | str
    name: PurePath
    split: str | None


def list_records(coco: Coco, root: Path) -> list[Record]:
    """All of a file below root."""
    return [
        Record(coco, number, name, _split_in(coco.path.relative_to(root).parent, name.parent, coco.path.stem))
        for number, name in coco.pictures.items()
    ]


def choose(records: Sequence[Record], split: str | None, others: Collection[str | None]) -> Record | None:
    """The record of a picture in a split; None where all are those of other splits.

    records: all that have its stem. others: splits that have a picture of this stem, too.
    Raises Unfit where nothing tells whose they are.
    """
    own = [record for record in records if split and record.split == split]
    found = own or [record for record in records if record.split not in others]
    found = [record for record in found if not record.coco.keypoints] or found  # joints repeat what others outline
    if len(found) > 1:
        raise Unfit(SEVERAL, " and ".join(name_files(found) if len(name_files(found)) > 1 else map(_say, found)))
    if found and not own and not {record.split for record in records}.issuperset(others):
        raise Unfit(SHARED, _say(found[0]))  # another split would take it, too
    return found[0] if found else None


def name_files(records: Sequence[Record]) -> list[str]:
    """The names of their files, each once."""
    return list(dict.fromkeys(record.coco.path.name for record in records))


def _say(record: Record) -> str:
    return f"{record.name} in {record.coco.path.name}"


def _split_in(*texts: PurePath | str) -> str | None:
    """The split that is named in the first of the texts in which just one is: train2017/, instances_val."""
    for text in texts:
        words = re.findall("[a-z]+", str(text).lower())
        splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
        if len(splits) == 1:
            return splits.pop()
    return None
