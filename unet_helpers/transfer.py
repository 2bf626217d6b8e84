"""Going on from a trained network, also one for other pictures and classes: transfer learning."""

import json
from pathlib import Path

import keras

from .labels import LabelMap
from .naming import named
from .networks import CONFIG, check_file, load_model, read_member, read_record

DRAWN_SCENES = Path(__file__).parent / "trained" / "drawn_scenes.keras"  # comes with the project; see its README.md


def take_weights(model: keras.Model, labels: LabelMap, path: str | Path, freeze_encoder: bool = False) -> bool:
    """Give a `unet_model`, before it is compiled, the weights of the network in a `.keras` file.

    If both know the same classes, all are taken. Otherwise, or if the file does not tell its classes, the last layer,
    which tells them apart, stays as it is: new and untrained.
    freeze_encoder: the encoder keeps these weights, and only the decoder is trained: less to learn from few pictures.
    Returns whether the last layer's weights were taken. Raises ValueError, naming the file, if it can't be read or its
    layers are others.
    Source: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792.
    """
    network, path = load_model(path), Path(path)
    known, *_ = read_record(path)
    same_classes = known is not None and labels.names == known.names
    mine, theirs = ([layer for layer in m.layers if layer.weights] for m in (model, network))
    taken = slice(None if same_classes else -1)
    shapes, found = ([[w.shape for w in layer.weights] for layer in some[taken]] for some in (mine, theirs))
    if shapes != found:
        raise ValueError(
            f"{named('START_FROM')}: the layers of {path} are not those of the network that goes on from it; expected "
            f"{_say(model)}, found {_say(network)}; with N_FILTERS = None and "
            "HALF_RESOLUTION = None it follows the file, if this project trained that"
        )
    for own, other in zip(mine[taken], theirs[taken], strict=True):
        own.set_weights(other.get_weights())
    if freeze_encoder:
        for layer in encoder(model):
            layer.trainable = False
    return same_classes


def unet_switches(path: str | Path) -> tuple[int, bool]:
    """(n_filters, half_resolution) of the `model.unet_model` in a `.keras` file, without loading it.

    Raises ValueError, naming the file, if it is none or its first layers are others.
    """
    path = Path(path)
    check_file(path)
    content = read_member(path, CONFIG)
    try:
        layers = json.loads(content)["config"]["layers"]
        first = next(layer["config"] for layer in layers if layer["class_name"] == "Conv2D")
        return int(first["filters"]), tuple(first["strides"]) == (2, 2)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, StopIteration) as error:
        raise ValueError(f"{path}: it holds no U-Net of this project; give the best.keras of a training") from error


def encoder(model: keras.Model) -> list[keras.Layer]:
    """The layers of a U-Net down to its bottleneck: all before the first up-convolution."""
    kinds = [isinstance(layer, keras.layers.Conv2DTranspose) for layer in model.layers]
    return model.layers[: kinds.index(True)]


def _say(model: keras.Model) -> str:
    filters = [f"{layer.filters} filters in the first" for layer in model.layers if hasattr(layer, "filters")]
    n_layers = sum(bool(layer.weights) for layer in model.layers)
    return ", ".join([f"{n_layers} layers with weights", *filters[:1], f"{model.count_params():,} parameters"])
