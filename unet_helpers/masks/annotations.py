"""Where the JSON files with outlines lie, and which picture each outline belongs to."""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePath

from .classes import BACKGROUND, VOID_NAME
from .coco import Coco, has_objects, is_coco, open_coco, read_outlines
from .pairing import normalize
from .polygons import Drawing, is_labelme, read_json, read_labelme
from .records import Record, choose, list_records, name_files
from .report import Faults, Unfit

NOT_READ = "it is neither LabelMe's nor COCO's JSON, which alone are read; export it as one of them, or as PNG masks"
NOT_HERE = "LabelMe's JSON is read beside the pictures and in masks/ only; move it there"
FOREIGN = "the outlines of its name are those of a picture in another folder; add its own, or move the picture away"
NO_OBJECTS = "it is COCO's JSON, but without objects; get the one with polygons, such as instances_train.json"


class Annotations:
    """The JSON files of LabelMe and COCO in a data set.

    folders: {split: (folder of pictures, of masks or None)}. COCO's files are kept, for several splits may share one.
    """

    def __init__(self, root: Path, folders: Mapping[str | None, tuple[Path, Path | None]], errors: Faults):
        self.root, self.errors = root, errors
        self.splits = {image_dir: split for split, (image_dir, _) in folders.items()}
        self.contents: dict[Path, dict[Path, Coco | Drawing | str | None]] = {}  # of the files for each image_dir
        self.coco: dict[Path, Coco] = {}
        self.faulty: set[Path] = set()  # named already
        self.used: set[Path] = set()  # COCO's that have a picture of some folder
        self.names: dict[str, None] = {}  # of COCO's categories, in the order of their ids
        self.labels: set[str] = set()  # of LabelMe

    def classes(self) -> tuple[str, ...]:
        """The names in all files that were looked at, background first; () if there were none."""
        names = dict.fromkeys([BACKGROUND, *self.names, *sorted(self.labels)])
        return tuple(name for name in names if name.lower() != VOID_NAME) if self.names or self.labels else ()

    def find(self, image_dir: Path, mask_dir: Path | None, images: Mapping[str, Path]) -> dict[str, Drawing | None]:
        """{stem: outlines, None if they are faulty} for the pictures {stem: file} in a folder."""
        stems = {normalize(stem): stem for stem in images}
        contents = {path: self._open(path, close) for path, close in self._list_files(image_dir, mask_dir)}
        self.contents[image_dir] = contents
        drawings: dict[str, Drawing | None] = {}
        for path, content in contents.items():
            if content is None:
                drawings |= _all_faulty(path, images)
            elif isinstance(content, Drawing):
                self._add(stems.get(normalize(path.stem), path.stem), content, drawings)
        records: dict[str, list[Record]] = {}
        for content in contents.values():
            for record in list_records(content, self.root) if isinstance(content, Coco) else ():
                if normalize(record.name.stem) in stems:
                    records.setdefault(stems[normalize(record.name.stem)], []).append(record)
                    self.used.add(content.path)
        self._add_coco(self.splits[image_dir], images, records, drawings)
        return drawings

    def _list_files(self, image_dir: Path, mask_dir: Path | None) -> Iterator[tuple[Path, bool]]:
        """All JSON files, and for each whether it lies where LabelMe's are read."""
        close = [folder for folder in (mask_dir, image_dir) if folder]
        places = [*close, image_dir.parent, image_dir.parent / "annotations", self.root, self.root / "annotations"]
        for folder in dict.fromkeys(places):
            if os.path.isdir(folder) and folder.is_relative_to(self.root):
                for path in sorted(folder.glob("*.[jJ][sS][oO][nN]")):
                    yield path, folder in close

    def _open(self, path: Path, close: bool) -> Coco | Drawing | str | None:
        """What a JSON file is: COCO's, LabelMe's outlines, or why it is not used; None where it is faulty."""
        try:
            content = self.coco.get(path) or read_json(path)
            if is_coco(content):
                content = open_coco(path, content) if has_objects(content) else NO_OBJECTS
            elif is_labelme(content):
                content = read_labelme(path, content) if close else NOT_HERE
            elif not isinstance(content, Coco):
                content = NOT_READ
        except Unfit as error:
            self._blame(path, error)
            return None
        if isinstance(content, Coco):
            self.coco[path] = content
            self.names |= dict.fromkeys(content.names)
        elif isinstance(content, Drawing):
            self.labels |= {label for label, _, _ in content.shapes}
        return content

    def _add_coco(
        self, split: str | None, images: Mapping[str, Path], records: dict[str, list[Record]], drawings: dict
    ) -> None:
        """Add the outlines of COCO's files. records: {stem: all that have it}."""
        chosen: dict[Path, dict[int | str, str]] = {}  # {file: {number of a picture in it: stem}}
        for stem, those in records.items():
            others = {other for other, there in self.stems_of.items() if other != split and normalize(stem) in there}
            try:
                record = choose(those, split, others)
                if record:
                    chosen.setdefault(record.coco.path, {})[record.number] = stem
                elif split != "test":  # which may do without masks
                    raise Unfit(FOREIGN, " and ".join(name_files(those)))
            except Unfit as error:
                self.errors.add(str(error), images[stem], error.found)
                drawings[stem] = None
        for path, stem_of in chosen.items():
            try:
                for number, drawing in read_outlines(self.coco[path], stem_of).items():
                    self._add(stem_of[number], drawing, drawings)
            except Unfit as error:
                self._blame(path, error)
                drawings |= _all_faulty(path, images)

    @cached_property
    def stems_of(self) -> dict[str | None, set[str]]:
        """{split: the stems in its folder of pictures}; what can't be read is named by who reads the pictures."""
        listed = {split: os.listdir(folder) for folder, split in self.splits.items() if os.access(folder, os.R_OK)}
        return {
            split: {normalize(PurePath(name).stem) for name in names if not name.lower().endswith(".json")}
            for split, names in listed.items()
        }

    def _add(self, stem: str, drawing: Drawing, drawings: dict[str, Drawing | None]) -> None:
        twin = drawings.setdefault(stem, drawing)
        if twin and twin is not drawing:
            self.errors.add("two files have its picture; keep one", drawing.path, f"{stem}, and {twin.path.name}")
            drawings[stem] = None

    def _blame(self, path: Path, error: Unfit) -> None:
        """Name what is wrong with a file, once, though it may be looked at for each split."""
        if path not in self.faulty:
            self.errors.add(str(error), path, error.found)
        self.faulty.add(path)

    def blame_unused(self, image_dir: Path) -> None:
        """Say of each file that `find` looked at why it is not used: for where nothing else has masks, either."""
        for path, content in self.contents.get(image_dir, {}).items():
            if isinstance(content, str):
                self.errors.add(content, path)
            elif isinstance(content, Coco) and path not in self.used:
                folder = image_dir.relative_to(self.root)
                first = next(iter(content.pictures.values()), "no picture")
                sentence = f"it is COCO's JSON, but none of its pictures is in {folder}; give both the same names"
                self.errors.add(sentence, path, f"it names {first}")


def _all_faulty(path: Path, images: Mapping[str, Path]) -> dict[str, None]:
    """The stems that a faulty file may be of."""
    return dict.fromkeys({path.stem} if path.stem in images else images)
