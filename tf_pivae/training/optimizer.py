"""Optimisers that skip a step whose gradients are not finite: Keras' own, and Adamax with one operation per variable.

In a gin file: `Trainer.generator_optimizer = @Adam` with `Adam.learning_rate = 0.0002`. Where generator and critic take
other settings, use gin's scopes, `@critic/Adam` and `critic/Adam.learning_rate`.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf

from tf_pivae.configurable import Count, Decay, NonNegative, Positive, configurable


class WholeSteps(keras.optimizers.Optimizer):
    """A mixin for Keras optimisers that takes a step whole or not at all, by gradients averaged over replicas.

    A step whose gradients have no finite norm changes no weight, no moment and not `iterations`, from which the bias
    correction follows. `steps` counts it all the same: data, noise and learning rate of a step depend on that number.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the slots, and the count of the steps taken."""
        super().build(variables)
        self.updates = self.add_variable(
            [], "zeros", dtype="int64", aggregation="only_first_replica", name="updates"
        )  # Steps taken and not skipped.

    @property
    def steps(self) -> keras.Variable:
        """Number of steps, those skipped among them, an int64 variable."""
        return self._iterations

    @property
    def iterations(self) -> keras.Variable:
        """Number of steps taken and not skipped: what Keras' optimisers correct their moments by."""
        return getattr(self, "updates", self._iterations)

    def apply(self, gradients: list[tf.Tensor], variables: list[keras.Variable]) -> tf.Tensor:
        """Takes a step, in the replica context.

        Args:
          gradients: list of float32 tensors, the same on every replica.
          variables: list of Keras variables among those that the optimiser was built with.

        Returns:
          Scalar float32, the norm of all gradients together before they are clipped; the step was skipped where it is
          not finite.
        """
        norm = tf.linalg.global_norm(gradients)
        finite = tf.math.is_finite(norm)
        counts = {id(self._iterations), id(self.updates)}
        changed = [variable.value for variable in [*variables, *self.variables] if id(variable) not in counts]
        before = [tf.identity(variable) for variable in changed]
        super().apply([tf.where(finite, gradient, 0.0) for gradient in gradients], variables)

        def keep(variable, before, finite):
            variable.assign(tf.where(finite, variable, before))

        def keep_all(strategy, before, finite):
            for variable, value in zip(changed, before, strict=True):
                strategy.extended.update(variable, keep, args=(value, finite), group=False)

        tf.distribute.get_replica_context().merge_call(keep_all, args=(before, finite))
        self.updates.assign_add(tf.cast(finite, tf.int64))
        return norm

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)  # Keras would sum over replicas here: these are means already.


def _rate(value: Any) -> Any:
    """A learning rate as Keras takes it: a whole number such as 0 as a float."""
    return float(value) if isinstance(value, int) else value


@configurable
class Adamax(WholeSteps, keras.optimizers.Adamax):
    """Adamax (Kingma & Ba 2015, algorithm 2) with one operation per variable."""

    def __init__(
        self,
        learning_rate: NonNegative | keras.optimizers.schedules.LearningRateSchedule = 0.002,
        beta_1: Decay = 0.9,
        beta_2: Decay = 0.999,
        clipnorm: Positive | None = None,
        global_clipnorm: Positive | None = None,
        name: str = "adamax",
    ) -> None:
        clipped = dict(clipnorm=clipnorm, global_clipnorm=global_clipnorm)
        super().__init__(_rate(learning_rate), beta_1, beta_2, name=name, **clipped)

    def apply(self, gradients: list[tf.Tensor], variables: list[keras.Variable]) -> tf.Tensor:
        """See `WholeSteps.apply`."""
        norm = tf.linalg.global_norm(gradients)
        finite = tf.math.is_finite(norm)
        # Without a finite norm, factors of 1 and a gradient and a learning rate of 0 leave all values as they are.
        zero = tf.zeros([])
        gradients = [tf.where(finite, gradient, zero) for gradient in self._clip_gradients(gradients)]
        beta_1, beta_2 = (tf.where(finite, float(beta), 1.0) for beta in (self.beta_1, self.beta_2))
        learning_rate = tf.where(finite, tf.convert_to_tensor(self.learning_rate), 0.0)
        beta_1_power = tf.pow(float(self.beta_1), tf.cast(self.updates + 1, tf.float32))
        epsilon = tf.constant(self.epsilon, tf.float32)
        scalars = dict(lr=learning_rate, beta1=beta_1, beta2=beta_2, beta1_power=beta_1_power, epsilon=epsilon)
        for variable, gradient in zip(variables, gradients, strict=True):
            slot = self._get_variable_index(variable)
            momentum, infinity_norm = (slots[slot].value.handle for slots in (self._m, self._u))
            tf.raw_ops.ResourceApplyAdaMax(  # On this replica's copy: the gradients are those of all.
                var=variable.value.handle, m=momentum, v=infinity_norm, grad=gradient, **scalars
            )
        self.steps.assign_add(1)
        self.updates.assign_add(tf.cast(finite, tf.int64))
        return norm


_SETTINGS = {
    "learning_rate": NonNegative | keras.optimizers.schedules.LearningRateSchedule,
    "beta_1": Decay,
    "beta_2": Decay,
    "rho": Decay,
    "momentum": Decay,
    "epsilon": Positive,
    "weight_decay": NonNegative | None,
    "clipnorm": Positive | None,
    "clipvalue": Positive | None,
    "global_clipnorm": Positive | None,
    "exclude_layers": list[str] | None,
    "ns_steps": Count,
}
# The trainer takes care of moving averages and parts of a batch; losses are not scaled.
_NOT_HERE = {"use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps"}


def _whole(kind: Any) -> type:
    """An optimiser of Keras as one of `WholeSteps`, registered with gin under its own name."""
    signature = inspect.signature(kind.__init__)
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in _NOT_HERE and parameter.kind is not parameter.VAR_KEYWORD
    }

    def initialize(self, *arguments, **keywords):
        if "learning_rate" in keywords:
            keywords["learning_rate"] = _rate(keywords["learning_rate"])
        super(optimizer, self).__init__(*arguments, **keywords)

    initialize.__name__ = "__init__"  # Under which gin registers it.
    initialize.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    initialize.__annotations__ = {
        name: _SETTINGS.get(name, bool if isinstance(parameter.default, bool) else float)
        for name, parameter in parameters.items()
        if name not in ("self", "name")
    }
    about = f"Keras' {kind.__name__}, its step taken whole or not at all; its arguments are those of Keras."
    members = {"__init__": initialize, "__doc__": about, "__module__": __name__}
    optimizer = type(kind.__name__, (WholeSteps, kind), members)
    return configurable(optimizer)


OPTIMIZERS = {
    name: _whole(getattr(keras.optimizers, name))
    for name in ("SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adagrad", "Adadelta", "Adafactor", "Lion", "Lamb", "Muon")
}
