"""A reader's own pictures and masks, of any kind, as pairs that training reads: 8-bit RGB and class ids.

The door is `prepare_folder`; `examine_folder` only looks and reports. `prepare_pairs` does the same for a data set of
known layout, such as Kaggle's CamVid, whose colours `camvid_classes` knows.
"""

from .class_lists import camvid_classes, find_classes, make_labels, read_names
from .layout import PICTURES as READABLE_SUFFIXES
from .preparation import Prepared, examine_folder, places_for, prepare_folder, prepare_pairs
from .report import Report, ValidationError
from .splits import natural

__all__ = [
    "ValidationError", "Prepared", "Report", "camvid_classes", "examine_folder", "find_classes", "places_for",
    "prepare_folder", "prepare_pairs", "READABLE_SUFFIXES", "make_labels", "natural",
    "read_names",
]  # fmt: skip
