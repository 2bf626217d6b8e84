"""A reader's own images and masks, of any encoding, as pairs that training reads: 8-bit RGB and class ids."""

from .class_lists import camvid_classes, find_classes, make_labels, read_names
from .layout import READABLE_SUFFIXES, find_in, find_root, natural
from .preparation import Prepared, places_for, prepare_folder
from .report import Report, ValidationError

__all__ = [
    "READABLE_SUFFIXES", "Prepared", "Report", "ValidationError", "camvid_classes", "find_classes", "find_in",
    "find_root", "make_labels", "natural", "places_for", "prepare_folder", "read_names",
]  # fmt: skip
