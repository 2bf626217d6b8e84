"""The U-Net: its two blocks, the network, and batch normalization with precise statistics."""

import itertools
import numbers
from collections.abc import Iterable

import keras
import numpy as np
from keras import layers

from .devices import share
from .naming import shown

N_IMAGES = 16  # for `PreciseStatistics`; they cost 1.5 % of an epoch of the demo, see benchmarks/README.md
# The switches of `unet_model` for the original U, but padded: what the lesson builds.
PLAIN = {"normalization": None, "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
LARGEST_SIDE = 8192  # of the images that a network takes, in pixels: more fits into no memory


def _convolution(x, n_filters: int, normalization: str | None, padding: str):
    """3x3 convolution -> (batch normalization) -> ReLU."""
    # No bias before a normalization, which subtracts the mean and would remove it again.
    x = layers.Conv2D(n_filters, 3, padding=padding, use_bias=normalization is None, kernel_initializer="he_normal")(x)
    if normalization == "batch":
        # Fused on TensorFlow; the compilers of other backends fuse by themselves. Without `PreciseStatistics`, Keras's
        # momentum of 0.99 takes hundreds of steps to forget the first.
        kind = FusedBatchNormalization if keras.backend.backend() == "tensorflow" else layers.BatchNormalization
        x = kind(momentum=0.9)(x)
    return layers.ReLU()(x)


def conv_block(
    inputs, n_filters: int = 32, dropout_prob: float = 0.0, max_pooling: bool = True, *,
    normalization: str | None = "batch", padding: str = "same",
):  # fmt: skip
    """One level of the encoder: two 3x3 convolutions, then dropout and 2x2 max pooling, both optional.
    inputs: (B, H, W, C) float tensor.
    Returns (next_layer, skip_connection): next_layer is (B, H/2, W/2, n_filters) with max_pooling, else it is
    skip_connection, (B, H, W, n_filters). padding="valid" makes both 4 pixels smaller first."""
    x = _convolution(inputs, n_filters, normalization, padding)
    x = _convolution(x, n_filters, normalization, padding)
    if dropout_prob > 0:
        x = layers.Dropout(dropout_prob)(x)
    # "same" pooling rounds an odd size up, so that the encoder loses no row of the image.
    return (layers.MaxPooling2D(2, padding="same")(x) if max_pooling else x), x


def _center_crop(x, other):  # an unknown size (None) fits already
    sides = zip(x.shape[1:3], other.shape[1:3], strict=True)
    surplus = [0 if None in pair else max(0, pair[0] - pair[1]) for pair in sides]
    return layers.Cropping2D([(n // 2, n - n // 2) for n in surplus])(x) if any(surplus) else x


def upsampling_block(
    expansive_input, contractive_input, n_filters: int = 32, *,
    normalization: str | None = "batch", padding: str = "same", up_kernel_size: int = 3,
):  # fmt: skip
    """One level of the decoder: up-convolution, concatenation with the skip connection, two 3x3 convolutions.
    expansive_input: (B, H, W, C), from the level below. contractive_input: (B, 2H, 2W, n_filters), the skip connection
    of this level, or None for none. The larger of the two is cropped to the smaller around its centre.
    Returns (B, 2H, 2W, n_filters), 4 pixels smaller with padding="valid"."""
    x = layers.Conv2DTranspose(n_filters, up_kernel_size, strides=2, padding="same")(expansive_input)
    if contractive_input is not None:
        x = layers.Concatenate()([_center_crop(x, contractive_input), _center_crop(contractive_input, x)])
    x = _convolution(x, n_filters, normalization, padding)
    return _convolution(x, n_filters, normalization, padding)


def check_image_size(name: str, image_size, step: int = 1, least: int = 1) -> tuple[int, int]:
    """Return (height, width) as Python's ints.
    Raises ValueError that begins with name unless both are whole, divisible by step, and from least to LARGEST_SIDE."""
    least, example = max(least, step), (192, 256)
    sides = tuple(image_size) if isinstance(image_size, (tuple, list, np.ndarray)) else ()
    if len(sides) == 2 and all(isinstance(side, numbers.Integral) for side in sides):
        example = tuple(int(np.clip(-(-side // step) * step, least, LARGEST_SIDE)) for side in sides)
        if example == sides:
            return example
    expected = f"{'whole numbers' if step == 1 else f'divisible by {step},'} from {least} to {LARGEST_SIDE}"
    raise ValueError(f"{name}: height and width must be {expected}, found {shown(image_size)}; try {shown(example)}")


def unet_model(
    input_size: tuple[int, int, int] = (96, 128, 3), n_filters: int = 32, n_classes: int = 23, *,
    depth: int = 4, dropout_prob: float = 0.3, normalization: str | None = "batch", padding: str = "same",
    up_kernel_size: int = 3, last_conv: bool = True, skip_connections: bool = True, half_resolution: bool = False,
) -> keras.Model:  # fmt: skip
    """U-Net (Ronneberger, Fischer and Brox 2015, https://arxiv.org/abs/1505.04597).
    Takes (B, H, W, C) with values 0..255 (rescaled to -1..1 inside) and returns logits (B, H, W, n_classes) float32.
    The defaults with normalization=None are the network of the DeepLearning.AI assignment. The paper's has
    padding="valid", up_kernel_size=2, last_conv=False and dropout_prob=0, and an output smaller than its input.
    input_size: (height, width, channels); (None, None, channels) takes images of any size whose sides are divisible by
        2**depth, or twice that with half_resolution.
    n_filters: filters of the first level; each of the depth levels below has twice as many as the one above.
    dropout_prob: share of the values dropped in the two deepest levels of the encoder while training.
    normalization: "batch" or None.
    skip_connections: False leaves them out, to show what they are for.
    half_resolution: output stride 2: a first convolution with stride 2 leaves a quarter of the pixels, and the logits
        have half the image's height and width.
    Raises ValueError for a side that `check_image_size` refuses, and for another normalization."""
    if tuple(input_size[:2]) != (None, None):
        check_image_size("input_size", input_size[:2], 2**depth if padding == "same" else 1)
    if normalization not in ("batch", None):
        raise ValueError(f'normalization: expected "batch" or None, found {normalization!r}')
    block = {"normalization": normalization, "padding": padding}
    inputs = keras.Input(input_size)
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    if half_resolution:
        x = layers.Conv2D(n_filters, 3, strides=2, padding="same", kernel_initializer="he_normal")(x)
        x = layers.ReLU()(x)
    skips = []
    for level in range(depth + 1):
        dropout = dropout_prob if level >= depth - 1 else 0
        x, skip = conv_block(x, n_filters * 2**level, dropout, max_pooling=level < depth, **block)
        skips.append(skip if skip_connections else None)
    for level in reversed(range(depth)):
        x = upsampling_block(x, skips[level], n_filters * 2**level, up_kernel_size=up_kernel_size, **block)
    if last_conv:
        x = _convolution(x, n_filters, None, padding)
    # float32 under mixed precision, too: half precision is too coarse for a softmax over many classes.
    logits = layers.Conv2D(n_classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="unet")


@keras.saving.register_keras_serializable("unet_helpers")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's layer, with the same weights, configuration and results, but a faster training step on TensorFlow.
    The fused kernel makes a CPU's step a twentieth to a third faster (benchmarks/README.md). inputs: (B, H, W, C).
    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167."""

    fused = True  # False leaves all to Keras, for comparison

    def call(self, inputs, training=None, mask=None):
        import tensorflow as tf

        if not (self.fused and training and self.trainable):  # Keras: a frozen layer uses its means in training, too
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, self.gamma, self.beta, epsilon=self.epsilon)
        n = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (n - 1) / n  # the kernel divides by n - 1, Keras by n
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return outputs


class PreciseStatistics(keras.callbacks.Callback):
    """Estimates the statistics of batch normalization anew before each validation, for the present weights.
    Keras averages them over past steps, while the weights change. With high learning rates and few steps per epoch the
    averages lag so far behind that a network that is right in training scores no better than the baseline in validation
    (benchmarks/README.md). Frozen layers keep their statistics. In `fit` it must come before the callbacks that save.
    batches: of training, (images, ...), images (B, H, W, C). N_IMAGES of them are used each time, without augmentation
        if the batches are from `make_batches`; if there are fewer images, augmented ones are added.
    Source: precise statistics, Wu and Johnson 2021, https://arxiv.org/abs/2105.07576."""

    def __init__(self, batches: Iterable):
        super().__init__()
        self.batches, self.network, self.is_new_epoch = batches, None, False

    def set_model(self, model):
        super().set_model(model)
        if self.network is None or self.network.network is not model:  # a new one would be compiled anew
            self.network = _TrainingMode(model)
        self.network.compile(jit_compile=model.jit_compile if model.compiled else False)

    def on_epoch_begin(self, epoch, logs=None):
        self.is_new_epoch = True

    def on_test_begin(self, logs=None):
        if self.is_new_epoch:
            self.estimate()
            self.is_new_epoch = False

    def on_epoch_end(self, epoch, logs=None):
        self.on_test_begin()  # where there was no validation

    def estimate(self) -> None:
        """Set means and variances to the mean over the batches of each batch's own under the present weights."""
        norms = [norm for norm in self.model.layers if isinstance(norm, layers.BatchNormalization) and norm.trainable]
        if not norms:
            return
        variables = [variable for layer in norms for variable in (layer.moving_mean, layer.moving_variance)]
        momenta, found = [layer.momentum for layer in norms], []
        try:
            for layer in norms:
                layer.momentum = 0.0  # compiled with it, the forward pass leaves the batch's own statistics
            plain = getattr(self.batches, "plain", ())
            for number, (images, *_) in enumerate(itertools.chain(plain, self.batches), 1):
                nothing = np.zeros(len(images))  # Keras 3.13 can't share None among devices
                self.network.test_on_batch(np.asarray(images), nothing, nothing)
                found.append([1 * keras.ops.convert_to_numpy(variable) for variable in variables])  # 1 *: a copy
                if number * len(images) * share().n_processes >= N_IMAGES:
                    break
        finally:
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum
        for variable, values in zip(variables, zip(*found, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))


class _TrainingMode(keras.Model):  # its test_on_batch normalizes by the batch's own statistics
    def __init__(self, network: keras.Model):
        super().__init__(name="training_mode")
        self.network = network

    def call(self, images):
        return self.network(images, training=True)

    def compute_loss(self, *_, **__):
        return keras.ops.zeros(())


def with_keras_layers_only(model: keras.Model, dtype: str | None = None) -> keras.Model:
    """A copy of a network, not compiled, of Keras's own layers only: its file loads without this package. In dtype."""

    def keras_layer(layer):
        kind = layers.BatchNormalization if isinstance(layer, FusedBatchNormalization) else type(layer)
        config = layer.get_config() | ({"dtype": dtype} if dtype else {})
        if "kernel_initializer" in config:  # no longer needed, and Keras before 3.14 can't read that of later ones
            config["kernel_initializer"] = "zeros"
        return kind.from_config(config)

    clone = keras.models.clone_model(model, clone_function=keras_layer)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs, clone.outputs, name=model.name)  # the clone itself has loss and optimizer
