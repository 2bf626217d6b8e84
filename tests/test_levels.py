import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from unet_helpers.model import conv_block, unet_model, upsampling_block
from unet_helpers.plots.levels import receptive_fields, unet_levels

PAPER = {"normalization": None, "padding": "valid", "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}


def by_hand(depth: int):
    """As in the lesson: blocks stacked by hand, no rescaling, the learner's own names."""
    inputs = x = keras.Input((32, 48, 3))
    skips = []
    for level in range(depth):
        x, skip = conv_block(x, 4 * 2**level)
        skips.append(skip)
    x, _ = conv_block(x, 4 * 2**depth, max_pooling=False)
    for level in reversed(range(depth)):
        x = upsampling_block(x, skips[level], 4 * 2**level)
    return keras.Model(inputs, layers.Softmax()(layers.Conv2D(5, 1, name="mine")(x)))


def test_the_assignments_levels():
    model = unet_model((96, 128, 3), 32, 23, normalization=None)
    assert [(level.name, level.part, level.size) for level in unet_levels(model)] == [
        ("input", "input", "96x128, 3"),
        ("level 1", "down", "96x128, 32"),
        ("level 2", "down", "48x64, 64"),
        ("level 3", "down", "24x32, 128"),
        ("level 4", "down", "12x16, 256"),
        ("bottom", "bottom", "6x8, 512"),
        ("level 4", "up", "12x16, 256"),
        ("level 3", "up", "24x32, 128"),
        ("level 2", "up", "48x64, 64"),
        ("level 1", "up", "96x128, 32"),
        ("output", "output", "96x128, 23"),
    ]


def test_the_papers_levels_and_what_its_skip_connections_are_cropped_to():
    """The numbers of figure 1 in the paper, https://arxiv.org/abs/1505.04597."""
    found = unet_levels(unet_model((572, 572, 1), 4, 2, **PAPER))
    sides = [568, 280, 136, 64, 28, 52, 100, 196, 388]
    assert [level.shape[:2] for level in found] == [(side, side) for side in (572, *sides, 388)]
    assert [level.entering[0] for level in found] == [572, 572, 284, 140, 68, 32, 56, 104, 200, 392, 388]
    up = [level for level in found if level.part == "up"]
    assert [(level.skip_from, level.skip[0]) for level in up] == [(4, 56), (3, 104), (2, 200), (1, 392)]


@pytest.mark.parametrize(
    ("depth", "options"), [(1, {}), (2, {"normalization": None, "dropout_prob": 0}), (3, {"last_conv": False}), (5, {})]
)
def test_each_skip_goes_across_at_every_depth(depth, options):
    found = unet_levels(unet_model((64, 96, 3), 2, 5, depth=depth, **options))
    down, up = ([level for level in found if level.part == part] for part in ("down", "up"))
    assert [level.number for level in down] == list(range(1, depth + 1))
    assert [level.shape for level in up] == [level.shape for level in reversed(down)]
    assert [(level.skip_from, level.skip) for level in up] == [(level.number, level.shape) for level in reversed(down)]


def test_without_skip_connections_there_are_none():
    found = unet_levels(unet_model((32, 32, 3), 2, 5, depth=2, skip_connections=False))
    assert {(level.skip, level.skip_from) for level in found} == {(None, None)}
    assert [level.entering for level in found if level.part == "up"] == [(16, 16, 4), (32, 32, 2)]


def test_half_resolution_shrinks_the_picture_before_level_1():
    found = unet_levels(unet_model((64, 96, 3), 2, 5, depth=1, half_resolution=True))
    assert [(level.name, level.number, level.size) for level in found] == [
        ("input", 0, "64x96, 3"),
        ("level 1", 1, "32x48, 2"),
        ("bottom", 2, "16x24, 4"),
        ("level 1", 1, "32x48, 2"),
        ("output", 1, "32x48, 5"),
    ]


@pytest.mark.parametrize("half_resolution", [False, True])
def test_any_size_is_the_size_that_is_asked_for(half_resolution):
    options = {"depth": 2, "half_resolution": half_resolution}
    free, fixed = (unet_model(size, 2, 5, **options) for size in ((None, None, 3), (32, 48, 3)))
    shapes = [[(level.name, level.shape, level.entering, level.skip) for level in found]
              for found in (unet_levels(free, (32, 48)), unet_levels(fixed), unet_levels(fixed, (32, 48)))]  # fmt: skip
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_network_built_by_hand_and_one_from_a_file_have_the_levels_of_unet_model(depth, tmp_path):
    built = by_hand(depth)
    built.save(tmp_path / "mine.keras")
    expected = unet_levels(unet_model((32, 48, 3), 4, 5, depth=depth, last_conv=False))
    for model in (built, keras.models.load_model(tmp_path / "mine.keras")):
        for level, wanted in zip(unet_levels(model), expected, strict=True):
            assert (level.name, level.shape, level.skip, level.skip_from) == (
                wanted.name, wanted.shape, wanted.skip, wanted.skip_from
            )  # fmt: skip
            assert level.entering == wanted.entering
            assert level.layer.output.shape[1:] == level.shape


@pytest.mark.parametrize("skip_first", [False, True])
def test_what_comes_across_is_told_from_what_comes_from_below(skip_first):
    inputs = keras.Input((8, 8, 3))
    skip = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D()(skip))
    x = layers.Conv2DTranspose(2, 2, strides=2)(x)
    x = layers.Concatenate()([skip, x] if skip_first else [x, skip])
    up = unet_levels(keras.Model(inputs, layers.Conv2D(5, 1)(layers.Conv2D(6, 3, padding="same")(x))))[-2]
    assert (up.entering, up.skip, up.skip_from, up.shape) == ((8, 8, 2), (8, 8, 4), 1, (8, 8, 6))


def linear_copy(model):
    """The same windows, but each value in them counts: sums instead of maxima, no ReLU, positive weights."""

    def linear(layer):
        if isinstance(layer, layers.ReLU):
            return layers.Activation("linear")
        if isinstance(layer, layers.MaxPooling2D):
            return layers.AveragePooling2D(layer.pool_size, layer.strides, layer.padding)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=linear)
    copy.set_weights([np.abs(weight) + 0.1 for weight in copy.get_weights()])
    return copy


def seen(model, level, image) -> np.ndarray:
    """(H, W) bool: the pixels on which one value in the middle of the level's answer depends, by its gradient."""
    features = keras.Model(model.inputs, level.layer.output)
    image = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = features([image], training=False)[0, level.shape[0] // 2, level.shape[1] // 2, 0]
    return tape.gradient(value, image).numpy()[0].any(axis=-1)


@pytest.mark.parametrize(
    "options",
    [{"depth": 2}, {"depth": 3}, {"depth": 1, "padding": "valid"}, {"depth": 2, "half_resolution": True},
     {"depth": 2, "normalization": None, "skip_connections": False}],
)  # fmt: skip
def test_receptive_fields_are_what_the_gradient_sees(options):
    side = 144 if options.get("half_resolution") or options["depth"] == 3 else 80
    model = unet_model((side, side, 3), 2, 3, **options)
    fields, linear = receptive_fields(model), linear_copy(model)
    rng = np.random.default_rng(0)
    pairs = [pair for pair in zip(unet_levels(model), unet_levels(linear), strict=True) if pair[0].part in ("down", "bottom")]
    assert list(fields) == [level.name for level, _ in pairs]
    for level, linear_level in pairs:
        field = seen(linear, linear_level, rng.uniform(0, 255, (1, side, side, 3)).astype("f4"))
        rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (fields[level.name],) * 2
        assert field.sum() == fields[level.name] ** 2
        # The network itself sees a part of that, another one in each picture: maxima and ReLU hide the rest.
        pictures = rng.uniform(0, 255, (5, 1, side, side, 3)).astype("f4")
        union = np.any([seen(model, level, picture) for picture in pictures], axis=0)
        assert union.any()
        assert not (union & ~field).any()


def test_receptive_fields_of_the_paper_and_of_other_kernels():
    assert receptive_fields(unet_model((572, 572, 1), 2, 2, **PAPER)) == {
        "level 1": 5, "level 2": 14, "level 3": 32, "level 4": 68, "bottom": 140,
    }  # fmt: skip
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 7)(inputs)  # 7
    x = layers.AveragePooling2D(3, 3)(x)  # 7 + 2
    x = layers.Conv2D(2, 3, dilation_rate=2)(x)  # 9 + 4 * 3
    outputs = layers.Conv2D(2, 1)(layers.UpSampling2D(3)(x))
    assert receptive_fields(keras.Model(inputs, outputs)) == {"level 1": 7, "bottom": 21}


def test_what_does_not_fit_is_named():
    free, fixed = unet_model((None, None, 3), 2, 3, depth=2), unet_model((32, 48, 3), 2, 3, depth=2)
    with pytest.raises(ValueError, match="image_size: this network takes pictures of any size"):
        unet_levels(free)
    with pytest.raises(ValueError, match=r"image_size: \(34, 48\) does not fit, '.*' would merge 18x24 and 17x24"):
        unet_levels(free, (34, 48))
    with pytest.raises(ValueError, match=r"image_size: .*\(32, 48\) is what this network takes.*found \(32, 32\)"):
        unet_levels(fixed, (32, 32))
    with pytest.raises(ValueError, match=r"image_size: expected \(height, width\).*found \(32,\)"):
        unet_levels(free, (32,))
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"model: expected a U-Net.*found the steps \['down'\]"):
        unet_levels(keras.Model(inputs, layers.MaxPooling2D()(layers.Conv2D(2, 3)(inputs))))
    twice = layers.Conv2D(3, 3)
    with pytest.raises(ValueError, match=r"model: expected layers that are called once each, found 're_lu"):
        unet_levels(keras.Model(inputs, layers.ReLU()(twice(twice(inputs)))))
