"""Batch normalization: one fused kernel in training where that is faster, and statistics that follow the weights."""

import itertools
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

N_IMAGES = 16  # of training, for a price of 1.5 % of an epoch of drawn scenes; with more see benchmarks/README.md


@keras.saving.register_keras_serializable("unet_helpers")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same weights, configuration and results; only the computation in training differs.

    Keras 3 on TensorFlow reads the whole tensor several times to normalize it, TensorFlow's fused kernel fewer times:
    what that is worth on a CPU, a twentieth to a third of a step, is in benchmarks/README.md.
    inputs: (B, H, W, C) float.
    fused: False leaves everything to Keras. `training.compile_unet` sets that where a compiler fuses by itself.
    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167.
    """

    fused = True

    def call(self, inputs, training=None, mask=None):
        # A frozen layer (trainable=False) keeps its means: Keras uses them then in training, too.
        if not (self.fused and training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        n = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (n - 1) / n  # the kernel's has n - 1 in the denominator, Keras's has n
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return outputs


def batch_normalization() -> keras.layers.BatchNormalization:
    """A new layer: the fused one on TensorFlow; Keras's own on another backend, whose compiler fuses by itself."""
    layer = FusedBatchNormalization if keras.backend.backend() == "tensorflow" else keras.layers.BatchNormalization
    # Where `PreciseStatistics` is not used: Keras's momentum of 0.99 takes hundreds of steps to forget the first ones.
    return layer(momentum=0.9)


class PreciseStatistics(keras.callbacks.Callback):
    """Estimates the statistics of batch normalization anew before each validation and saving, for the present weights.

    Keras averages means and variances over the past steps, while the weights change. At this project's learning rates
    the averages lag so far behind that with a few steps an epoch a network that is right in training is no better than
    the baseline in validation, for dozens of epochs (benchmarks/README.md). Frozen layers keep their statistics.
    batches: of training, (images, ...), images (B, H, W, C). As many are looked at each time as N_IMAGES take, those of
        `make_batches` without augmentation, as the network sees images in use; then, of fewer images, augmented ones.
    In `fit` it comes before the callbacks that save.
    Source: precise statistics, Wu and Johnson 2021, https://arxiv.org/abs/2105.07576.
    """

    def __init__(self, batches: Iterable):
        super().__init__()
        self.batches, self.network, self.is_new_epoch = batches, None, False

    def set_model(self, model):
        super().set_model(model)
        if self.network is None or self.network.network is not model:
            self.network = _TrainingMode(model)
        self.network.jit_compile = model.compiled and model.jit_compile

    def on_epoch_begin(self, epoch, logs=None):
        self.is_new_epoch = True

    def on_test_begin(self, logs=None):
        if self.is_new_epoch:
            self.estimate()
            self.is_new_epoch = False

    def on_epoch_end(self, epoch, logs=None):
        self.on_test_begin()  # where there was no validation

    def estimate(self) -> None:
        """Set means and variances to the mean over the batches of what each batch has under the present weights."""
        norms = [layer for layer in self.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        norms = [layer for layer in norms if layer.trainable]
        if not norms:
            return
        variables = [variable for layer in norms for variable in (layer.moving_mean, layer.moving_variance)]
        momenta = [layer.momentum for layer in norms]
        found = []
        try:
            for layer in norms:
                layer.momentum = 0.0  # compiled so, the forward pass leaves the batch's own statistics
            plain = getattr(self.batches, "plain", ())
            for number, (images, *_) in enumerate(itertools.chain(plain, self.batches), 1):
                self.network.predict_on_batch(np.asarray(images))
                found.append([1 * keras.ops.convert_to_numpy(variable) for variable in variables])  # 1 *: a copy
                if number * len(images) >= N_IMAGES:
                    break
        finally:
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum
        for variable, values in zip(variables, zip(*found, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))


class _TrainingMode(keras.Model):
    """A network that normalizes by the statistics of the batch, as in training, when `predict_on_batch` calls it."""

    def __init__(self, network: keras.Model):
        super().__init__(name="training_mode")
        self.network = network

    def call(self, images):
        return self.network(images, training=True)


def with_keras_layers_only(model: keras.Model) -> keras.Model:
    """A copy of a network, not compiled, made of Keras's own layers alone: its file loads without this package."""

    def keras_layer(layer):
        kind = keras.layers.BatchNormalization if isinstance(layer, FusedBatchNormalization) else type(layer)
        config = layer.get_config()
        if "kernel_initializer" in config:  # has done its work, and Keras before 3.14 can't read what later ones write
            config["kernel_initializer"] = "zeros"
        return kind.from_config(config)

    clone = keras.models.clone_model(model, clone_function=keras_layer)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs, clone.outputs, name=model.name)  # a clone takes loss and optimizer along
