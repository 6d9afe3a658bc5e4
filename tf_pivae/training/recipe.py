"""What a run is: the settings `train.NAME` of a configuration, and what they build."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Annotated

import gin
import keras

from tf_pivae.configurable import Batch, Count, Index, NonNegative, configurable
from tf_pivae.data.arrays import ImageDataset
from tf_pivae.data.specification import Specification
from tf_pivae.errors import UserError
from tf_pivae.layers.initialization import seeded
from tf_pivae.models.critic import Critic
from tf_pivae.models.pivae import PiVAE
from tf_pivae.system.layer_types import float32_layers
from tf_pivae.training.building import bounded_variables, explained
from tf_pivae.training.loggers import JsonlLogger, Logger, TensorBoardLogger
from tf_pivae.training.trainer import Trainer
from tf_pivae.training.validation import Validation
from tf_pivae.values import Within

_FREE = {"free": True}  # It may change when a run goes on: no weight depends on it.


@configurable(name="train")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run consists of. `Recipe()` is what the configuration says; gin calls it `train`.

    Attributes:
      dataset: a function that returns an `ImageDataset`.
      model: a function of `image_shape` and `num_classes` that returns a `PiVAE`.
      critic: None, or a function of `num_classes` that returns a `Critic`.
      trainer: a function of `pivae`, `critic`, `moving_average` and `seed` that returns a `Trainer`.
      num_steps: train steps in all.
      batch_size: the global batch.
      seed: of the initial weights, the order of the data, and all noise.
      class_conditional: condition the model on the data set's labels.
      flip: mirror training images at random.
      moving_average: keep a moving average of the generator, which then is the model that is evaluated and loaded.
      log_every, sample_every, checkpoint_every: in steps; a `sample_every` of 0 draws none.
      keep_checkpoints: number of newest checkpoints to keep.
      initial_run: folder of a run whose model (the moving average where it was kept) and critic (where it has one of
        the same architecture) are where this one starts.
      max_consecutive_skips: steps in a row with a loss or gradient that is not finite that end the run.
      eval_examples: held-out images for the bits per dimension at the end; 0 evaluates none.
      eval_importance_samples: K of the tighter bound reported beside K = 1.
      shown_temperature: of the second grid in `RUN/samples.png`, which also has half of the noise of p(y|z); the first
        grid is the model itself.
      jit_compile: whether XLA compiles the step; None: where one GPU takes it. It pays there, not on processors, and
        replicas cannot exchange anything within a step that XLA compiles.
      validation: None, or a function of `test` and `likelihood` that returns a `Validation`: scores on the way, and the
        best checkpoint by one of them, which `load` knows as step "best".
      loggers: functions of `run_dir` and `start_step` that return the `Logger`s which get numbers and pictures.
    """

    dataset: Callable[..., ImageDataset] = gin.REQUIRED
    model: Callable[..., PiVAE] = PiVAE
    critic: Callable[..., Critic] | None = None
    trainer: Callable[..., Trainer] = Trainer
    num_steps: Count = gin.REQUIRED
    batch_size: Batch = 64
    seed: Index = 0
    class_conditional: bool = False
    flip: bool = False
    moving_average: bool = False
    log_every: Count = field(default=50, metadata=_FREE)
    sample_every: Index = field(default=1000, metadata=_FREE)
    checkpoint_every: Count = field(default=1000, metadata=_FREE)
    keep_checkpoints: Count = field(default=3, metadata=_FREE)
    initial_run: str | None = None
    max_consecutive_skips: Count = field(default=20, metadata=_FREE)
    eval_examples: Index = field(default=1000, metadata=_FREE)
    eval_importance_samples: Annotated[int, Within(1, 10**6)] = field(default=16, metadata=_FREE)
    shown_temperature: NonNegative = field(default=0.8, metadata=_FREE)
    jit_compile: bool | None = None
    validation: Callable[..., Validation] | None = field(default=None, metadata=_FREE)
    loggers: tuple[Callable[..., Logger], ...] = field(default=(JsonlLogger, TensorBoardLogger), metadata=_FREE)

    def build(self, data: ImageDataset | Specification, replicas: int = 1) -> Trainer:
        """The trainer with its model and critic.

        Args:
          data: the data set, or what is known of it before it is opened.
          replicas: among which a batch is divided.

        Raises:
          UserError: the model cannot be built for the images, or takes more memory than there is; data without labels
            for a class-conditional model; a batch that cannot be divided.
        """
        if self.class_conditional and not data.num_classes:
            raise UserError(f"{data.name} has no labels: set class_conditional = False, or choose labelled data.")
        num_classes = data.num_classes if self.class_conditional else 0
        keras.utils.set_random_seed(self.seed % 2**32)  # For layers of one's own; ours have `seeded`.
        with (
            explained(f"the model cannot be built for images of {list(data.image_shape)}"),
            bounded_variables(),
            seeded(self.seed),
        ):
            trainer = self.trainer(
                pivae=self.build_model(data.image_shape, num_classes),
                critic=self.build_critic(num_classes),
                moving_average=self.build_model(data.image_shape, num_classes) if self.moving_average else None,
                seed=self.seed,
            )
        with explained(f"batch_size = {self.batch_size}"):
            trainer.check_batch(self.batch_size // replicas)
        return trainer

    def build_model(self, image_shape: Sequence[int], num_classes: int) -> PiVAE:
        """A model of images (H, W, C); `num_classes` is 0 for one that is not class-conditional."""
        return self.model(image_shape=image_shape, num_classes=num_classes)

    def build_critic(self, num_classes: int) -> Critic | None:
        """A critic without variables yet; None for a run without one."""
        with float32_layers():
            return None if self.critic is None else self.critic(num_classes=num_classes)


FREE_SETTINGS = {f"train.{setting.name}" for setting in dataclasses.fields(Recipe) if setting.metadata == _FREE}
