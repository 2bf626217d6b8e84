"""info: what a network is, from its file alone."""

from pathlib import Path

import keras

from ..naming import counted
from ..networks import load_model, read_about, read_record
from . import find_network


def info(network: Path) -> int:
    """Print a line for each thing that the file tells; returns 0. Raises ValueError, naming the file."""
    path = find_network(network)
    model, (labels, size, bits), about = load_model(path), read_record(path), read_about(path)
    logits = size and "{}x{}".format(*keras.tree.flatten(model(keras.KerasTensor((1, *size, 3))))[0].shape[1:3])
    classes = labels and ", ".join(f"{k} {name}" for k, name in enumerate(labels.names))
    score = about.get("val_mIoU") and f"validation mIoU {about['val_mIoU']:.3f} in epoch {about['epoch']}"
    for name, text in {
        "network": f"{path}, {path.stat().st_size / 1e6:.1f} MB, {model.count_params():,} parameters",
        "classes": classes, "image size": size and f"{size[0]}x{size[1]} (height x width), logits of {logits}",
        "16 bits": f"the highest 8 of {bits} bits were read in training" if bits else "",
        "data set": about and f"{about['data_set']}, {counted(about['n_images'], 'training image')}", "score": score,
        "began from": about and (about["start"] or "random weights"),
    }.items():  # fmt: skip
        if text != "":
            print(f"{name:<11} {text or 'not in the file'}")
    return 0
