"""Annex: gets a data set from Kaggle, whole or not at all. Nobody needs it to follow the lesson.

Its door is `download_dataset` and the one error that it raises, `DownloadError`. `find_layout` looks for a folder of
known shape, in what was downloaded as in what was there; `check_whole`, whether all that was downloaded is still there.
"""

from .dataset import check_whole, download_dataset, find_layout
from .unpack import DownloadError

__all__ = ["DownloadError", "check_whole", "download_dataset", "find_layout"]
