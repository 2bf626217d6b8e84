"""The optimizer, Muon for kernels and AdamW for the rest, and the learning-rate schedule."""

import keras


@keras.saving.register_keras_serializable("unet_helpers")
class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly to peak, stays there, and falls linearly to 0.
    steps: of the whole training, see `set_steps`. warmup, decay: the shares of them in which it rises and falls.
    A cosine, the usual choice, is already low when the largest images come (`ProgressiveResizing`).
    Source: Hägele et al. 2024, https://arxiv.org/abs/2405.18392."""

    def __init__(self, steps: int, peak: float = 2e-2, warmup: float = 0.05, decay: float = 0.3):
        self.steps, self.peak, self.warmup, self.decay = steps, peak, warmup, decay
        self.variable = keras.Variable(steps, dtype="float32", trainable=False)  # a compiled step reads it anew

    def set_steps(self, steps: int) -> None:
        """Change the length, also of a compiled network's schedule, even after its first step (JAX: `KernelMuon`'s)."""
        self.steps = steps
        self.variable.assign(steps)

    def __call__(self, step):
        step, steps = keras.ops.cast(step, "float32"), self.variable.value
        up, down = (step + 1) / (self.warmup * steps), (steps - step) / (self.decay * steps)
        return self.peak * keras.ops.clip(keras.ops.minimum(up, down), 0, 1)

    def get_config(self):
        return {"steps": self.steps, "peak": self.peak, "warmup": self.warmup, "decay": self.decay}


@keras.saving.register_keras_serializable("unet_helpers")
class KernelMuon(keras.optimizers.Muon):
    """Keras's Muon for the kernels of convolutions, too; Keras itself uses it for matrices and AdamW for all else.
    AdamW scales the step of each weight by itself. Muon takes the steps of all weights of a kernel as a matrix with one
    column per filter and makes it nearly orthogonal, so that no few directions dominate the step.
    Sources: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
    https://arxiv.org/abs/2502.16982 (the length of the step, which makes AdamW's learning rates fit)."""

    def __init__(self, learning_rate=1e-3, **options):
        super().__init__(learning_rate, **options)
        # A step that JAX has compiled reads anew only what is among the optimizer's variables.
        self.of_schedule = [learning_rate.variable] if isinstance(learning_rate, WarmupStableDecay) else []

    @property
    def variables(self):
        return super().variables + self.of_schedule

    def _should_use_adamw(self, variable):
        # As its authors advise, AdamW keeps the last layer, the only 1x1 convolution.
        return len(variable.shape) != 4 or tuple(variable.shape[:2]) == (1, 1)

    def zeropower_via_newtonschulz5(self, x, steps):
        return keras.ops.reshape(super().zeropower_via_newtonschulz5(_as_matrix(x), steps), x.shape)

    def lr_adjust(self, x):
        return keras.ops.reshape(super().lr_adjust(_as_matrix(x)), x.shape)


def _as_matrix(kernel):
    """(height, width, A, B) -> (height * width * A, B)."""
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1]))
