"""A reader's own pictures and masks, of any kind, as pairs that training reads: 8-bit RGB and class ids.

The door is `prepare_folder`; `examine_folder` only looks and reports. `prepare_pairs` does the same for a data set of
known layout, such as Kaggle's CamVid, whose colours `camvid_classes` knows.
"""

from .classes import camvid_classes, find_classes
from .preparing import Prepared, examine_folder, places_for, prepare_folder, prepare_pairs
from .report import FaultyFiles, Report

__all__ = [
    "FaultyFiles", "Prepared", "Report", "camvid_classes", "examine_folder", "find_classes", "places_for",
    "prepare_folder", "prepare_pairs",
]  # fmt: skip
