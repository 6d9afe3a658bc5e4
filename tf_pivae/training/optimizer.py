"""Adamax whose step is taken whole or not at all."""

import keras
import tensorflow as tf


class Adamax(keras.optimizers.Adamax):
    """Adamax (Kingma & Ba 2015, algorithm 2) in one operation a variable, for gradients already summed over replicas.

    A step whose gradients have no finite norm changes no weight, no moment, and not the bias correction; `iterations`
    counts it nevertheless: it is the place in the streams of data and noise.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self.updates = self.add_variable(
            [], "zeros", dtype="int64", aggregation="only_first_replica", name="updates"
        )  # Steps taken and not skipped.

    def apply(self, gradients: list[tf.Tensor], variables: list[keras.Variable]) -> tf.Tensor:
        """Takes a step, in the replica context.

        Args:
          gradients: list of float32 tensors, the same on every replica.
          variables: list of Keras variables among those that the optimiser was built with.

        Returns:
          Scalar float32, the norm of all gradients together; the step was skipped where it is not finite.
        """
        norm = tf.linalg.global_norm(gradients)
        finite = tf.math.is_finite(norm)
        # Without a finite norm, factors of 1 and a gradient and a learning rate of 0 leave all values as they are.
        gradients = [tf.where(finite, gradient, 0.0) for gradient in gradients]
        beta_1, beta_2 = (tf.where(finite, float(beta), 1.0) for beta in (self.beta_1, self.beta_2))
        learning_rate = tf.where(finite, tf.convert_to_tensor(self.learning_rate), 0.0)
        beta_1_power = tf.pow(float(self.beta_1), tf.cast(self.updates + 1, tf.float32))
        scalars = dict(
            lr=learning_rate, beta1=beta_1, beta2=beta_2, beta1_power=beta_1_power, epsilon=float(self.epsilon)
        )
        indices = [self._get_variable_index(variable) for variable in variables]
        slots = [
            (variable.value, self._m[i].value, self._u[i].value) for i, variable in zip(indices, variables, strict=True)
        ]

        def update_one(weight, momentum, norm, gradient, scalars):
            tf.raw_ops.ResourceApplyAdaMax(
                var=weight.handle, m=momentum.handle, v=norm.handle, grad=gradient, **scalars
            )

        def update_all(strategy, gradients, scalars):
            for (weight, *moments), gradient in zip(slots, gradients, strict=True):
                strategy.extended.update(weight, update_one, args=(*moments, gradient, scalars), group=False)

        tf.distribute.get_replica_context().merge_call(update_all, args=(gradients, scalars))
        self.iterations.assign_add(1)
        self.updates.assign_add(tf.cast(finite, tf.int64))
        return norm
