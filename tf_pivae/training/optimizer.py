"""Adamax that leaves a weight alone where the gradient is not a number."""

import keras
import tensorflow as tf


class Adamax(keras.optimizers.Adamax):
    """Keras' Adamax for gradients that are already summed over replicas, with non-finite ones skipped.

    Where an element of the gradient is not finite, the weight and both moments keep their values. A caller that wants
    to skip a whole step passes NaN everywhere: then nothing changes but `iterations`, which counts calls.

    Attributes:
      updates: int64 variable, the calls that were not skipped whole; the t of the bias correction 1 - beta_1^t.
    """

    def build(self, variables):
        super().build(variables)
        self.updates = self.add_variable((), dtype="int64", aggregation="only_first_replica", name="updates")

    def apply(self, grads, trainable_variables=None):
        taken = tf.reduce_any(tf.math.is_finite(grads[0]))  # A step that is skipped whole is NaN everywhere.
        self.updates.assign_add(tf.cast(taken, tf.int64))
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # The trainer has summed them: it needs the sum to judge the step.

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        momentum, norm = self._m[index], self._u[index]
        finite = tf.math.is_finite(gradient)
        power = tf.pow(tf.cast(self.beta_1, variable.dtype), tf.cast(self.updates, variable.dtype))
        new_momentum = momentum + (1.0 - self.beta_1) * (gradient - momentum)
        new_norm = tf.maximum(self.beta_2 * norm, tf.abs(gradient))
        update = learning_rate * new_momentum / ((1.0 - power) * (new_norm + self.epsilon))
        for target, new in ((momentum, new_momentum), (norm, new_norm), (variable, variable - update)):
            self.assign(target, tf.where(finite, new, target))
