"""The arguments of all commands. Nothing that takes time is imported for them, so that --help is quick."""

import argparse
import re
from pathlib import Path

from ..labels import DATASETS

FORMATS = ("tf_saved_model", "litert", "onnx", "keras_half")  # those of `exporting`
NETWORK = "best.keras of a training, or its folder"
DRAWING_SEED = "of the scenes that --dataset demo draws (default: 0)"


def make_parser() -> argparse.ArgumentParser:
    """The parser of `python -m unet_helpers`."""
    parser = argparse.ArgumentParser(
        "python -m unet_helpers", description="Check pictures and masks, train a U-Net on them, score it, use it.",
        epilog="Exit code: 0 all is well, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C.",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_check, _add_train, _add_diagnose, _add_evaluate, _add_predict, _add_export):
        add(commands)
    return parser


def _add_check(commands) -> None:
    parser = _add(commands, "check", "decode every file of a data set as training will, and say what is in them")
    _add_dataset(parser, DRAWING_SEED)


def _add_train(commands) -> None:
    parser = _add(commands, "train", "train a network with the recipe of the notebook's part 3")
    _add_dataset(parser, "of all that is random: first weights, order, augmentation, the scenes of demo (default: 0)")
    parser.add_argument(
        "--minutes", type=float, default=4.0, metavar="M",
        help="the notebook's MINUTES: train for two thirds of them, as its part 3 does (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, metavar="N", help="exactly so many epochs, instead of --minutes")
    _add_size(parser, "of the pictures in training, divisible by 32, at least 64 (default: what suits the data set)")
    parser.add_argument(
        "--runs", type=_text, default="runs", metavar="FOLDER", help="each network gets a folder in it (default: runs)"
    )
    parser.add_argument(
        "--train-anew", action="store_true", help="train once more, in another folder, what was trained to its end"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=2e-2, metavar="R", help="the highest (default: %(default)g)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="pictures a step (default: 8 on a CPU, 16 on a GPU)"
    )
    parser.add_argument(
        "--start-from", type=_text, metavar="NETWORK",
        help="begin with the weights of this network: a .keras file, a training's folder, demo (the included network "
        "of the drawn scenes), or scratch (default: demo for camvid on a CPU, else scratch)",
    )  # fmt: skip
    parser.add_argument(
        "--freeze-encoder", action="store_true", help="with --start-from: keep encoder and bottleneck, train the rest"
    )


def _add_diagnose(commands) -> None:
    parser = _add(
        commands, "diagnose", "say why a training failed: all black, nan or stuck", "Exit code 1: a cause was found.",
    )  # fmt: skip
    parser.add_argument("run_dir", type=_path, metavar="RUN", help="folder of the training, one of those in runs/")
    parser.add_argument("data_dir", type=_text, metavar="DIR", help="folder of its data set, as train had it")
    parser.add_argument("--dataset", choices=DATASETS, help="which it is (default: that of the training)")


def _add_evaluate(commands) -> None:
    parser = _add(commands, "evaluate", "score a network on a data set")
    _add_network(parser)
    _add_dataset(parser, DRAWING_SEED)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"),
        help="the part of the data set to score (default: test, or validation where there is no test split)",
    )  # fmt: skip


def _add_predict(commands) -> None:
    parser = _add(
        commands, "predict", "write the network's masks of pictures, of all in a folder, of a GIF's frames",
        "16-bit pictures: their highest 8 bits in use are taken, for all that are given of one folder alike, as in "
        "training. One that is given alone is scaled by its own values.",
    )  # fmt: skip
    _add_network(parser)
    parser.add_argument(
        "pictures", nargs="+", type=_path, metavar="PICTURE|FOLDER|GIF",
        help="a picture of any size, a folder with pictures, an animation",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=_path, metavar="DIR",
        help="folder for NAME_ids.png (class ids), NAME_colors.png and NAME_overlay.png of each picture, and "
        "NAME_film.gif of several; it is made where there is none",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace such files of earlier calls")


def _add_export(commands) -> None:
    parser = _add(
        commands, "export", "write a network for other programs, which need neither Keras nor this package",
        "What is written takes (batch, height, width, 3) float32 RGB, 0..255, and answers logits, (batch, height, "
        "width, classes), of half that height and width where it was trained on a CPU. Fit each picture into the size "
        "of the training, keep its proportions, fill the rest with grey (128); the largest logit is the class id. "
        "onnx needs two more packages: pip install onnx tf2onnx.",
    )  # fmt: skip
    parser.add_argument("network", type=_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "--format", required=True, choices=FORMATS,
        help="SavedModel, LiteRT (phones), ONNX, or a .keras file of half the size",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=_path, metavar="PATH",
        help="NAME.tflite for litert, NAME.onnx for onnx, NAME.keras for keras_half, a new folder for tf_saved_model",
    )  # fmt: skip


def _add(commands, name: str, text: str, more: str | None = None) -> argparse.ArgumentParser:
    about = f"{text[0].upper()}{text[1:]}."
    return commands.add_parser(name, help=text, description=about, epilog=more, allow_abbrev=False)


def _add_dataset(parser: argparse.ArgumentParser, seed: str) -> None:
    parser.add_argument(
        "data_dir", type=_text, metavar="DIR",
        help="folder with your images/ and masks/, or where another --dataset lies or will be put "
        "(data/README.md says what may be in it)",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", choices=DATASETS, default="folder", help="your own folder, or a known one (default: %(default)s)"
    )
    parser.add_argument(
        "--split-by", type=_pattern, metavar="PATTERN",
        help=r"never split the pictures of one drive, patient or film: a regular expression that finds it in their "
        r"names, such as '^(film\d+)_'; for folder only, and the same one in check, train and evaluate",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=seed)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", type=_path, metavar="NETWORK", help=NETWORK)
    _add_size(parser, "at which the network looks at pictures (default: that of its training)")
    parser.add_argument(
        "--classes", type=_path, metavar="FILE", help="names of the network's classes, one a line (default: as trained)"
    )


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
        re.compile(text)
        fault = "" if text else "it is empty"
    except (re.error, RecursionError, OverflowError) as error:
        fault = f"no regular expression: {error}"
    if fault:
        raise argparse.ArgumentTypeError(rf"found {text!r} ({fault}), expected a pattern such as '^(film\d+)_'")
    return text
