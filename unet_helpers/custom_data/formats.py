"""Formats of other tools that are not read as they are: what each is called, and what makes it readable."""

from pathlib import Path
from typing import NamedTuple


class Format(NamedTuple):
    name: str
    signs: tuple[str, ...]  # patterns below the folder: something is found for each of them
    todo: str  # the one step, or the tool, that makes it readable


FORMATS = (
    Format(
        "Cityscapes", ("leftImg8bit/*/*/*_leftImg8bit.png", "gtFine/*/*/*_gtFine_*.png"),
        "copy leftImg8bit/train/*/*.png to train/images/, gtFine/train/*/*_labelIds.png to train/masks/, val/ alike; "
        "for the usual 19 classes take *_labelTrainIds.png, which csCreateTrainIdLabelImgs makes (pip install "
        "cityscapesscripts)",
    ),
    Format(
        "Label Studio's PNG per label", ("**/task-*-annotation-*-tag-*.png",),
        "export it as COCO if it has polygons; else merge the PNGs of each task into one mask: the recipe 'A PNG per "
        "label' in data/README.md",
    ),
    Format(
        "Supervisely", ("**/meta.json", "**/ann/*.json"),
        "run Supervisely's app 'Export as masks' and give the folder that holds img/ and masks_machine/",
    ),
    Format(
        "nnU-Net with volumes", ("imagesTr/*.nii*",),
        "write the slices as PNG files of the same names to images/ and masks/, with nibabel and Pillow",
    ),
    Format(
        "YOLO", ("**/labels/**/*.txt",),
        "turn its polygons into COCO's JSON with supervision (pip install supervision): sv.DetectionDataset.from_yolo("
        "images, labels, 'data.yaml', force_masks=True).as_coco(annotations_path='annotations.json'); boxes alone are "
        "no masks",
    ),
)  # fmt: skip


def recognise(root: Path) -> str:
    """ "this is YOLO; turn its ..." of a folder in a format that is not read; "" if none is known."""
    for name, signs, todo in FORMATS:
        if all(any(root.glob(sign)) for sign in signs):
            return f"this is {name}; {todo}"
    return ""
