"""The arguments of all commands. Nothing slow is imported for them, so that --help is quick."""

import argparse
import re
from pathlib import Path

from .. import __version__
from ..labels import DATASETS, SPLITS
from ..naming import EXPORT_SUFFIXES

NETWORK = "best.keras of a run, or its folder, or demo, the included network of the drawn scenes"
SEED_OF_DEMO = "of the scenes that --dataset demo draws (default: 0)"


def make_parser() -> argparse.ArgumentParser:
    """The parser of `python -m unet_helpers`."""
    parser = argparse.ArgumentParser(
        "python -m unet_helpers", description="Check images and masks, train a U-Net on them, score it, use it.",
        epilog="Exit code: 0 success, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"unet_helpers {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = _add(commands, "check", "decode every file of a data set as training will, and say what is in them")
    _add_dataset(check, SEED_OF_DEMO)
    show = "write figures of some pairs to this folder, with masks over images and a legend; suspicious ones first"
    check.add_argument("--show", type=_path, metavar="FOLDER", help=show)
    check.add_argument("--overwrite", action="store_true", help="replace such figures of earlier calls")
    _add_train(_add(commands, "train", "train a network with the recipe of the notebook's part 3"))
    speed = _add(commands, "speed", "say what holds such a training up on this machine, and what helps")
    _add_dataset(speed, SEED_OF_DEMO, nargs="?")
    _add_size_and_batch(speed)

    causes = "Exit code 1: a cause was found."
    diagnose = _add(commands, "diagnose", "say why a training failed: all black, nan or stuck", causes)
    diagnose.add_argument("run_dir", type=_path, metavar="RUN", help="folder of the run, one of those in runs/")
    diagnose.add_argument("data_dir", type=_text, metavar="DIR", help="folder of its data set, as train had it")
    diagnose.add_argument("--dataset", choices=DATASETS, help="which it is (default: that of the run)")

    evaluate = _add(commands, "evaluate", "score a network on a data set")
    _add_network(evaluate)
    _add_dataset(evaluate, SEED_OF_DEMO)
    split = "the part of the data set to score (default: test, or validation where there is no test split)"
    evaluate.add_argument("--split", choices=(*SPLITS, "all"), help=split)
    scores = "write the scores, those of each class and of each image, to this file, too"
    evaluate.add_argument("--json", type=_path, metavar="FILE", help=scores)
    info = _add(commands, "info", "say what a network is: classes, sizes, data set, score, what it began from")
    info.add_argument("network", type=_path, metavar="NETWORK", help=NETWORK)
    _add_predict(commands)
    _add_export(commands)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_dataset(parser, "of all that is random: first weights, order, augmentation, the scenes of demo (default: 0)")
    _add_size_and_batch(parser)
    minutes = "the notebook's MINUTES: train for two thirds of them, as its part 3 does (default: %(default)g)"
    network = "load the weights of a network: a .keras file, a run's folder, demo (the included network of the drawn "
    network += "scenes), or scratch for none (default: demo for camvid on a CPU, else scratch)"
    add = parser.add_argument
    add("--minutes", type=float, default=4.0, metavar="M", help=minutes)
    add("--epochs", type=int, metavar="N", help="exactly so many epochs, instead of --minutes")
    add("--runs", type=_text, default="runs", metavar="FOLDER", help="each run gets a folder in it (default: runs)")
    add("--train-anew", action="store_true", help="train once more, in another folder, what was trained to its end")
    add("--learning-rate", type=float, default=2e-2, metavar="R", help="the highest (default: %(default)g)")
    add("--start-from", type=_text, metavar="NETWORK", help=network)
    add("--freeze-encoder", action="store_true", help="with --start-from: train only the decoder")


def _add_predict(commands) -> None:
    parser = _add(
        commands, "predict", "write the network's masks of images, or of all in a folder",
        "Each prediction is the mean of those for the image and for the flipped image (test-time augmentation, TTA). "
        "16-bit images: their highest 8 bits in use are taken, alike for all that are given of one folder, as in "
        "training. One that is given alone is scaled by its own values.",
    )  # fmt: skip
    _add_network(parser)
    out = "folder for NAME_ids.png (class ids), NAME_colors.png and NAME_overlay.png of each image, legend.png "
    out += "and classes.txt; it is made where there is none"
    images = "an image of any size, of an animation the first frame, or a folder with images"
    parser.add_argument("images", nargs="+", type=_path, metavar="IMAGE|FOLDER", help=images)
    parser.add_argument("--out", required=True, type=_path, metavar="DIR", help=out)
    parser.add_argument("--overwrite", action="store_true", help="replace such files of earlier calls")
    grey = "write NAME_confidence.png, too: 0 (black) to 255 for a softmax of 0 to 1 of the predicted class"
    parser.add_argument("--confidence", action="store_true", help=grey)


def _add_export(commands) -> None:
    parser = _add(
        commands, "export", "write a network for other programs, which need neither Keras nor this package",
        "What is written takes (batch, height, width, 3) float32 RGB, 0..255, and returns logits, (batch, height, "
        "width, classes), of half that height and width where it was trained on a CPU. Letterbox each image into the "
        "size of the training, with grey (128) as padding; the largest logit is the class id. onnx needs two more "
        "packages: pip install onnx tf2onnx.",
    )  # fmt: skip
    formats = "SavedModel, LiteRT (phones), ONNX, or a .keras file of half the size"
    out = "NAME.tflite for litert, NAME.onnx for onnx, NAME.keras for keras_half, a new folder for tf_saved_model"
    parser.add_argument("network", type=_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument("--format", required=True, choices=EXPORT_SUFFIXES, help=formats)
    parser.add_argument("--out", required=True, type=_path, metavar="PATH", help=out)


def _add(commands, name: str, text: str, more: str | None = None) -> argparse.ArgumentParser:
    about = f"{text[0].upper()}{text[1:]}."
    return commands.add_parser(name, help=text, description=about, epilog=more, allow_abbrev=False)


def _add_dataset(parser: argparse.ArgumentParser, seed: str, **options) -> None:
    folder = "folder with your images/ and masks/, or where another --dataset is or will be put (see data/README.md)"
    pattern = r"keep the images of a sequence or patient in one split: a regular expression that finds it in their "
    pattern += r"names, such as '^(drive\d+)_'; for folder only, and the same one in check, train and evaluate"
    names = "your own folder, or a known one (default: %(default)s)"
    parser.add_argument("data_dir", type=_text, metavar="DIR", help=folder, **options)
    parser.add_argument("--dataset", choices=DATASETS, default="folder", help=names)
    parser.add_argument("--split-by", type=_pattern, metavar="PATTERN", help=pattern)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=seed)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", type=_path, metavar="NETWORK", help=NETWORK)
    _add_size(parser, "into which images are letterboxed for the network (default: that of its training)")
    classes = "names of the network's classes, one a line (default: as trained)"
    parser.add_argument("--classes", type=_path, metavar="FILE", help=classes)


def _add_size_and_batch(parser: argparse.ArgumentParser) -> None:
    _add_size(parser, "of the images in training, divisible by 32, at least 64 (default: what suits the data set)")
    batch_size = "images in a step (default: 8 on a CPU, 16 on a GPU)"
    parser.add_argument("--batch-size", type=int, metavar="N", help=batch_size)


def _add_size(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--image-size", type=_size, metavar="HxW", help=f"height and width {text}")


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected a path")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected HEIGHTxWIDTH in pixels, such as 192x256")
    return int(match[1]), int(match[2])


def _pattern(text: str) -> str:
    try:
        if not re.compile(text).pattern:
            raise re.error("it is empty")
    except (re.error, RecursionError, OverflowError) as error:
        expected = r"expected a regular expression such as '^(drive\d+)_'"
        raise argparse.ArgumentTypeError(f"found {text!r} ({error}), {expected}") from None
    return text
