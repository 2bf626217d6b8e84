"""Gets a data set from Kaggle, whole or not at all. No part of the lesson; only what is exported here is for others."""

from .archives import DownloadError
from .dataset import check_whole, download_dataset, find_layout

__all__ = ["DownloadError", "check_whole", "download_dataset", "find_layout"]
