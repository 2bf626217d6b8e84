"""Batch normalization as Keras computes it, in training with one fused kernel where that is faster."""

import keras
import tensorflow as tf


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
    # The default momentum of 0.99 needs hundreds of steps to learn the means that are used after training.
    return layer(momentum=0.9)


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
