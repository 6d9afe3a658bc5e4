"""Algorithm 1 (appendix E): one train step alternates critic and generator."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.bijectors.preprocessing import affine
from tf_pivae.configurable import MOST_ROWS, Count, Decay, Depth, Index, NonNegative, configurable
from tf_pivae.layers.analytic_gradients import analytic_gradients
from tf_pivae.layers.moments import replica_mean
from tf_pivae.models.pivae import Bound, PiVAE
from tf_pivae.noise import RowNoise
from tf_pivae.training import averaging, losses, regularizers
from tf_pivae.training.balance import GradientBalance, slope_at_mean
from tf_pivae.training.gradients import Gradients, add, among, averaged, every, pulled, scaled, spread
from tf_pivae.training.keras_methods import KerasMethods, images_and_labels
from tf_pivae.training.optimizer import Adamax, WholeSteps


class Stage(NamedTuple):
    """What a step trains; a graph is of one stage."""

    adversary: bool = True  # the critic, where there is one, and the generator by it
    posterior_alone: bool = False  # q, by the bound itself; the model, and so every sample, stays as it is


_ALL = Stage()


@configurable
class Trainer(KerasMethods):
    """Trains a `PiVAE` by likelihood, by an adversary, or by both (section 4.2).

    generator:  minimise  likelihood_weight * L_C + adversarial_weight * L_Q
    critic:     minimise  critic_loss(D(v), D(v~)) + regularizer

    L_C alone is the VAE and the PiVAE, L_Q alone the GAN, both are CQG (without a flow) and CQFG (with one). A
    likelihood of weight 0 is not computed. The flow's own variables receive the gradient of L_C alone; that of L_Q
    passes through the flow's inverse into the decoder.

    Noise and data of a step are functions of (seed, step, place in the global batch), so a step does not depend on the
    number of replicas. A step whose loss or gradient is not finite changes no weight, no moment of the optimiser and no
    moving average; its metric `skipped_generator` or `skipped_critic` is 1.

    Args:
      pivae: `PiVAE`, the model to train.
      critic: `Critic`, or None to train by likelihood alone.
      moving_average: None, or a second `PiVAE` of the same architecture that receives the moving average.
      likelihood_weight: float; 0 for the GAN.
      adversarial_weight: float, lambda_adv; 100 belongs to D = 3072 (appendix A.4). With `balance`, a share.
      adversarial_start: int, steps by likelihood alone, before which the critic is neither computed nor trained.
      adversarial_ramp_steps: int, steps from there on over which lambda_adv grows linearly; 0 is off.
      posterior_start: None, or int, steps after which q alone goes on (`PiVAE.posterior_variables`), by the bound
        itself, without `free_nats` or a weight of the KL: the model, the moving average where it is kept, and so every
        sample, stays as it is (`begin`).
      balance: None, or a function that returns a `GradientBalance`, which sets lambda_adv step by step.
      critic_loss: a function (real_logits, fake_logits) -> scalar: `logistic_loss` (the paper's) or `hinge_loss`.
      regularizer: None, or a function that returns what is added to the critic's loss, see
        `tf_pivae.training.regularizers`: `GradientPenalty` (the paper's) or `R1`.
      regularizer_interval: k; the regularizer is computed in every k-th step alone, k times as strong (Karras et al.
        2020). `critic_regularization` is 0 in the others.
      augment: None, or a function that returns a function (images, noise) -> images through which all images reach the
        critic: `DifferentiableAugmentation`.
      critic_steps: critic updates before each generator update, each on fresh samples.
      inference_only: train only sigma and the inference network, around a generator that stays as it is: the bits per
        dimension of a GAN (section 5.1).
      free_nats: float, see `losses.coverage_loss`; 0 is off.
      kl_weight: float, the KL's weight in the training loss; 1 is the bound. Below it, latents keep more of an image.
        Or a list, one for each group of `vae.group_names`.
      kl_warmup_steps: int, steps over which the KL's weight grows linearly to `kl_weight`; 0 is off.
      learning_rate, beta_1, beta_2: of the `Adamax` that either has by default.
      generator_optimizer, critic_optimizer: None, or a function that returns another one of
        `tf_pivae.training.optimizer`.
      moving_average_decay: float, the average's memory.
    """

    def __init__(
        self,
        pivae: PiVAE,
        critic: keras.layers.Layer | None = None,
        moving_average: keras.Model | None = None,
        likelihood_weight: NonNegative = 1.0,
        adversarial_weight: NonNegative = 100.0,
        adversarial_start: Index = 0,
        adversarial_ramp_steps: Index = 0,
        posterior_start: Index | None = None,
        balance: Callable[[], GradientBalance] | None = None,
        critic_loss: Callable[..., tf.Tensor] = losses.logistic_loss,
        regularizer: Callable[[], Callable] | None = regularizers.GradientPenalty,
        regularizer_interval: Count = 1,
        augment: Callable[[], Callable] | None = None,
        critic_steps: Depth = 1,
        inference_only: bool = False,
        free_nats: NonNegative = 0.0,
        kl_weight: NonNegative | tuple[NonNegative, ...] = 1.0,
        kl_warmup_steps: Index = 0,
        learning_rate: NonNegative = 0.002,
        beta_1: Decay = 0.9,
        beta_2: Decay = 0.999,
        generator_optimizer: Callable[..., WholeSteps] | None = None,
        critic_optimizer: Callable[..., WholeSteps] | None = None,
        moving_average_decay: Decay = 0.999,
        seed: Index = 0,
        name: str = "trainer",
    ) -> None:
        super().__init__(name=name)
        if inference_only and (critic is not None or likelihood_weight == 0.0):
            raise ValueError("`inference_only` trains by likelihood alone: set `critic` to None.")
        if critic is None and likelihood_weight == 0.0:
            raise ValueError("nothing to train: give a `critic`, or a `likelihood_weight` above 0.")
        if likelihood_weight == 0.0 and (adversarial_start or balance is not None or posterior_start is not None):
            raise ValueError("`adversarial_start`, `balance` and `posterior_start` need a `likelihood_weight` above 0.")
        groups = pivae.vae.group_names
        self.kl_weights = list(kl_weight) if isinstance(kl_weight, Sequence) else [kl_weight] * len(groups)
        if len(self.kl_weights) != len(groups):
            raise ValueError(
                f"`kl_weight` has {len(self.kl_weights)} numbers for {len(groups)} latent groups "
                f"({', '.join(groups)}): give one, or one for each."
            )
        self.pivae = pivae
        self.critic = critic
        self.moving_average = moving_average
        self.likelihood_weight = likelihood_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.adversarial_ramp_steps = adversarial_ramp_steps
        self.posterior_start = posterior_start
        self.balance = None if balance is None or critic is None else balance()
        self.critic_loss = critic_loss
        self.critic_steps = critic_steps
        self.regularizer = None if regularizer is None else regularizer()
        self.regularizer_interval = regularizer_interval
        self.augment = None if augment is None else augment()
        self.free_nats = free_nats
        self.kl_warmup_steps = kl_warmup_steps
        self.moving_average_decay = moving_average_decay
        self.seed = seed
        adamax = functools.partial(Adamax, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
        self.generator_optimizer = (generator_optimizer or adamax)(name="generator_optimizer")
        self.inference_only = inference_only
        self.generator_optimizer.build(self.generator_variables)
        self._outside_the_head = [not inside for inside in among(self.generator_variables, pivae.flow_variables)]
        self.critic_optimizer = None
        if critic is not None:
            critic.build(pivae.image_shape)
            self.critic_optimizer = (critic_optimizer or adamax)(name="critic_optimizer")
            self.critic_optimizer.build(critic.trainable_variables)
        self.synchronize_moving_average()
        self.built = True

    @property
    def step(self) -> keras.Variable:
        """Number of train steps taken, an int64 variable."""
        return self.generator_optimizer.steps

    @property
    def state(self) -> dict[str, list[keras.Variable]]:
        """Everything that a later step depends on: a dict of a group's name -> list of variables."""
        parts = {
            "pivae": self.pivae,
            "moving_average": self.moving_average,
            "critic": self.critic,
            "generator_optimizer": self.generator_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "balance": self.balance,
        }
        return {name: part.variables for name, part in parts.items() if part is not None}

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """The variables that the generator's optimiser updates."""
        return self.pivae.inference_variables if self.inference_only else self.pivae.trainable_variables

    @property
    def _variables_outside_the_head(self) -> list[keras.Variable]:
        """Those that receive the gradient of L_Q."""
        return list(itertools.compress(self.generator_variables, self._outside_the_head))

    def initialize(self, images: np.ndarray, labels: np.ndarray | None = None, weights: bool = True) -> None:
        """Data-dependent initialisation from the first global batch, uint8 [B, H, W, C], outside of any replica.

        `weights=False` is for a model that is already trained: only sigma is set, or nothing where q alone is trained.
        """
        if weights or not self.stage(0).posterior_alone:
            self.pivae.initialize(images, self.seed, labels, weights=weights)
        self.synchronize_moving_average()

    def synchronize_moving_average(self) -> None:
        """Sets the moving average to the current weights."""
        if self.moving_average is not None:
            for average, variable in zip(self.moving_average.variables, self.pivae.variables, strict=True):
                average.assign(variable)

    def begin(self, stage: Stage) -> None:
        """Prepares a stage before its first step in a process, outside of any replica.

        Where q alone is trained, the model gets the weights that are evaluated: the moving average, where there is one.
        """
        if stage.posterior_alone and self.moving_average is not None:
            variables = self.pivae.variables
            posterior = among(variables, self.pivae.posterior_variables)
            for variable, average, stays in zip(variables, self.moving_average.variables, posterior, strict=True):
                if not stays:
                    variable.assign(average)

    def check_batch(self, rows: int | None) -> None:
        """Raises ValueError where a replica cannot take steps on so many images; None are as many as come."""

    # One step.

    def stage(self, step: int) -> Stage:
        """What the step after so many trains."""
        alone = self.posterior_start is not None and step >= self.posterior_start
        return Stage(self.critic is not None and step >= self.adversarial_start and not alone, alone)

    def train_step(self, data: tf.Tensor | tuple[tf.Tensor, tf.Tensor], stage: Stage = _ALL) -> dict[str, tf.Tensor]:
        """Algorithm 1: the gradient of L_C; the critic's updates; the gradient of L_Q; the generator's update.

        Args:
          data: uint8 images [b, H, W, C], this replica's slice of the global batch; or (images, int labels [b]).
          stage: `stage` of this step. Keras' property `jit_compile` says whether XLA compiles it.

        Returns:
          dict of float32 scalars, averaged over replicas: every loss term in nats per image, KLs by latent group.
        """
        on_processors = not (self.jit_compile or tf.config.list_physical_devices("GPU"))
        with analytic_gradients(products=on_processors):
            return self._train_step(data, stage)

    def _train_step(self, data, stage):
        images, labels = images_and_labels(data)
        labels = labels if self.pivae.num_classes else None
        self.check_batch(images.shape[0])
        rows = images.shape[0]
        noise = self._step_noise(tf.shape(images)[0] if rows is None else rows)
        variables = self.pivae.posterior_variables if stage.posterior_alone else self.generator_variables
        metrics = {}
        gradients: Gradients = [None] * len(variables)
        log_ratio = None
        if self.likelihood_weight > 0.0:
            gradients, metrics = self._likelihood_gradients(images, labels, noise, variables, stage)
        if stage.adversary and self.critic is not None:
            skipped = 0.0
            for i in range(self.critic_steps):
                draw = f"adversary/{i}"
                critic_gradients, critic_metrics, samples = self._critic_gradients(images, labels, noise, draw)
                norm, skips = self._apply(self.critic_optimizer, self.critic.trainable_variables, critic_gradients)
                self.critic.update_normalization()
                skipped = tf.maximum(skips, skipped)  # 1 where any of them was skipped.
            metrics |= {**critic_metrics, "critic_gradient_norm": norm, "skipped_critic": skipped}
            # The generator's update uses the samples of the last critic step.
            quality_gradients, quality_metrics = self._quality_gradients(samples, labels, noise.fold_in(draw))
            metrics |= quality_metrics
            if self.balance is not None:
                log_ratio = self.balance.log_ratio(metrics["likelihood_slope"], metrics["quality_slope"])
                weight = self._ramp() * self.balance.weight(self.adversarial_weight, log_ratio)
                quality_gradients = scaled(weight, quality_gradients)
                metrics["adversarial_weight"] = weight
            gradients = add(gradients, spread(quality_gradients, self._outside_the_head))
        norm, skipped = self._apply(self.generator_optimizer, variables, gradients)
        if log_ratio is not None:
            self.balance.update(log_ratio, skipped)
        metrics |= {"gradient_norm": norm, "skipped_generator": skipped, "log_sigma": self.pivae.vae.log_sigma}
        if self.moving_average is not None:
            averages = self.moving_average.variables
            updates = self.generator_optimizer.updates
            averaging.move(averages, self.pivae.variables, self.moving_average_decay, updates, skipped)
        values = replica_mean(tf.stack([tf.cast(value, tf.float32) for value in metrics.values()]))
        return dict(zip(metrics, tf.unstack(values), strict=True))

    # Its parts: gradients beside their variables, and metrics.

    def _likelihood_gradients(
        self,
        images: tf.Tensor,
        labels: tf.Tensor | None,
        noise: RowNoise,
        variables: list[keras.Variable],
        stage: Stage,
    ) -> tuple[Gradients, dict[str, tf.Tensor]]:
        """Gradients of L_C for the variables of the stage, and metrics; images, labels and noise are the step's."""
        with tf.GradientTape() as tape:
            bound = self.pivae.bound(images, noise.fold_in("likelihood"), self._moves_moments(stage), labels)
            loss = self._coverage_loss(bound, stage)
        return pulled(tape, loss, variables), self._bound_metrics(bound)

    def _critic_gradients(
        self, images: tf.Tensor, labels: tf.Tensor | None, noise: RowNoise, draw: str
    ) -> tuple[Gradients, dict[str, tf.Tensor], "Samples | None"]:
        """Gradients of the critic's loss on real images and fresh samples, which are returned for the generator.

        Args:
          draw: names the stream of noise of the samples.
        """
        samples = self._samples(noise.fold_in(draw), labels)
        return *self._judge(images, samples.images, labels, noise, noise.fold_in(draw)), samples

    def _quality_gradients(
        self, samples: "Samples | None", labels: tf.Tensor | None, noise: RowNoise
    ) -> tuple[Gradients, dict[str, tf.Tensor]]:
        """Gradients of L_Q for the variables outside of the head, times the weight unless `balance` sets it later."""
        fake = samples.images
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fake)
            augmented = self._augmented(fake, noise.fold_in("augment/generator"))
            quality = losses.quality_loss(self.critic(augmented, labels=labels))
        upstream = tape.gradient(quality, fake)
        variables = self._variables_outside_the_head
        metrics = {"quality_loss": quality}
        if self.balance is None:
            upstream = self._ramp() * self.adversarial_weight * upstream
            return pulled(samples.tape, fake, variables, upstream), metrics
        *gradients, at_mean = pulled(samples.tape, fake, [*variables, samples.mean], upstream)
        return gradients, {**metrics, "quality_slope": slope_at_mean(at_mean)}

    def _samples(self, noise: RowNoise, labels: tf.Tensor | None) -> "Samples":
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in self._variables_outside_the_head:
                tape.watch(variable.value)
            mean = self.pivae.vae.sample_mean(noise, labels=labels)
            v = self.pivae.observe(mean, noise, training=True)
            return Samples(affine().forward(self.pivae.dequantization.critic_view(v)), mean, tape)

    def _judge(
        self, images: tf.Tensor, fake: tf.Tensor, labels: tf.Tensor | None, noise: RowNoise, critic_noise: RowNoise
    ) -> tuple[Gradients, dict[str, tf.Tensor]]:
        """The gradients of the critic's loss, and metrics."""

        def logits(v):
            return self.critic(v, labels=labels)

        def regularization():
            return 0.0 if self.regularizer is None else self.regularizer(logits, real, fake, critic_noise)

        real = affine().forward(self.pivae.dequantize(images, noise.fold_in("critic")))
        real = self._augmented(real, critic_noise.fold_in("augment/real"))
        fake = self._augmented(tf.stop_gradient(fake), critic_noise.fold_in("augment/fake"))
        variables = self.critic.trainable_variables
        lazy = self.regularizer is not None and self.regularizer_interval > 1
        with tf.GradientTape() as tape:
            real_logits = logits(real)
            fake_logits = logits(fake)
            loss = self.critic_loss(real_logits, fake_logits)
            added = 0.0 if lazy else regularization()
            total = loss + added
        gradients = pulled(tape, total, variables)
        if lazy:
            added, more = every(self.regularizer_interval, self.step + 1, regularization, variables)
            gradients = add(gradients, more)
        return gradients, {
            "critic_loss": loss,
            "critic_regularization": added,
            "real_logit": tf.reduce_mean(real_logits),
            "fake_logit": tf.reduce_mean(fake_logits),
        }

    def _augmented(self, images: tf.Tensor, noise: RowNoise) -> tf.Tensor:
        return images if self.augment is None else self.augment(images, noise)

    def _moves_moments(self, stage: Stage) -> bool:
        """Whether the head uses the batch's moments; a head that is not trained uses its running averages."""
        return not (self.inference_only or stage.posterior_alone)

    def _free_nats(self, stage: Stage) -> float:
        return 0.0 if stage.posterior_alone else self.free_nats

    def _coverage_loss(
        self, bound: Bound, stage: Stage, reduce: Callable[[tf.Tensor], tf.Tensor] = replica_mean
    ) -> tf.Tensor:
        kl_weights = None if stage.posterior_alone else self._kl_weights()
        return self.likelihood_weight * losses.coverage_loss(bound, self._free_nats(stage), kl_weights, reduce)

    def _bound_metrics(self, bound: Bound) -> dict[str, tf.Tensor]:
        metrics = losses.bound_metrics(bound, self.pivae.dimensions, self.pivae.vae.group_names)
        if self.balance is not None:
            slope = tf.reduce_mean(self.pivae.vae.squared_slope(bound.reconstruction))
            metrics["likelihood_slope"] = self.likelihood_weight**2 * slope
        return metrics

    def _ramp(self) -> float | tf.Tensor:
        """How much of its weight the adversarial loss has in this step."""
        if not self.adversarial_ramp_steps:
            return 1.0
        return tf.clip_by_value((self._step_number() - self.adversarial_start) / self.adversarial_ramp_steps, 0.0, 1.0)

    def _kl_weights(self) -> list[float | tf.Tensor]:
        if not self.kl_warmup_steps:
            return self.kl_weights
        warmed = tf.minimum(1.0, self._step_number() / self.kl_warmup_steps)
        return [weight * warmed for weight in self.kl_weights]

    def _step_number(self) -> tf.Tensor:
        """The step that is being taken, from 1 on: a scalar float32."""
        return tf.cast(self.step + 1, tf.float32)

    def _step_noise(self, rows: int | tf.Tensor) -> RowNoise:
        # Keras' last batch of an epoch may be smaller: then each step has a range of rows to itself.
        stride = MOST_ROWS if tf.is_tensor(rows) else rows
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        step = tf.cast(self.step, tf.int64)
        first_row = (step * context.num_replicas_in_sync + replica) * stride
        return RowNoise(self.seed, rows, first_row, for_xla=self.jit_compile)

    def _apply(
        self, optimizer: WholeSteps, variables: list[keras.Variable], gradients: Gradients
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One update by the replicas' mean gradient; returns its norm, and 1.0 if the step was skipped."""
        norm = optimizer.apply(averaged(gradients, variables), variables)
        return norm, 1.0 - tf.cast(tf.math.is_finite(norm), tf.float32)


class Samples(NamedTuple):
    """Samples of the model on their way to the critic."""

    images: tf.Tensor  # [B, H, W, C] on the [-1, 1] scale
    mean: tf.Tensor  # [B, H, W, C], the mean of p(y|z)
    tape: tf.GradientTape  # the tape that recorded how they were made
