"""Where the JSON files with outlines lie, and which picture each outline belongs to."""

import os
from collections.abc import Collection
from pathlib import Path

from .polygons import BACKGROUND, Drawing, coco_names, is_coco, is_labelme, read_coco, read_json, read_labelme
from .report import Faults, Unfit


class Annotations:
    """The JSON files of LabelMe and COCO in a data set. COCO's are kept, for several splits may share one."""

    def __init__(self, root: Path, errors: Faults):
        self.root, self.errors = root, errors
        self.coco: dict[Path, dict] = {}
        self.names: dict[str, None] = {}  # of COCO's categories, in the order of their ids
        self.labels: set[str] = set()  # of LabelMe

    def classes(self) -> tuple[str, ...]:
        """The names in all files that were looked at, background first; () if there were none."""
        names = dict.fromkeys([BACKGROUND, *self.names, *sorted(self.labels)])
        return tuple(names) if self.names or self.labels else ()

    def find(self, image_dir: Path, mask_dir: Path | None, images: Collection[str]) -> dict[str, Drawing | None]:
        """{stem: outlines, None if their file is faulty} for the pictures with the stems `images` in a folder."""
        close = [folder for folder in (mask_dir, image_dir) if folder]  # LabelMe's files lie here, others may
        places = [*close, image_dir.parent, image_dir.parent / "annotations", self.root, self.root / "annotations"]
        drawings: dict[str, Drawing | None] = {}
        for folder in dict.fromkeys(places):
            if os.path.isdir(folder) and folder.is_relative_to(self.root):
                for path in sorted(folder.glob("*.[jJ][sS][oO][nN]")):
                    self._add(path, folder in close, images, drawings)
        return drawings

    def _add(self, path: Path, close: bool, images: Collection[str], drawings: dict[str, Drawing | None]) -> None:
        new: dict[str, Drawing] = {}
        try:
            content = self.coco.get(path) or read_json(path)
            if is_coco(content):
                self.coco[path] = content
                new = {stem: drawing for stem, drawing in read_coco(path, content).items() if stem in images}
                self.names |= dict.fromkeys(coco_names(content))
            elif is_labelme(content) and close:
                new = {path.stem: read_labelme(path, content)}
                self.labels |= {label for label, _, _ in new[path.stem].shapes if label is not None}
        except Unfit as error:
            self.errors.add(str(error), path, error.found)
            drawings |= dict.fromkeys({path.stem} if path.stem in images else images)
        for stem, drawing in new.items():
            twin = drawings.setdefault(stem, drawing)
            if twin and twin is not drawing:
                self.errors.add("two files have its picture; keep one", path, f"{stem}, and {twin.path.name}")
