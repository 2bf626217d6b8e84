"""The parts that the tutorial `segmentation_unet.ipynb` is built from; each module is one step of it."""

__version__ = "1.1.0"
