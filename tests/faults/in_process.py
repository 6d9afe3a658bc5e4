"""Trainings within the test's own process, which spares TensorFlow's start, and a hook after each of their steps."""

from pathlib import Path

import gin
import keras
import numpy as np

from tf_pivae import loading, uses
from tf_pivae.training import loop, monitor, recorder
from tf_pivae.training.recipe import Recipe

PLAIN = Path(__file__).resolve().parent.parent / "sweeps" / "plain.gin"
_PARAMETERS = ("train.log_every=1", "train.eval_examples=0", "train.moving_average=True", "train.checkpoint_every=2")


OWN = "own.npz"  # What `USES` are given, beside their outputs.
# What people do with a run, as functions of its folder and one for outputs.
USES = {
    "sample": lambda run_dir, out: uses.sample(run_dir, f"{out}/samples/", 2),
    "reconstruct": lambda run_dir, out: uses.reconstruct(run_dir, out / OWN, out / "reconstructions.npz"),
    "interpolate": lambda run_dir, out: uses.interpolate(run_dir, out / OWN, out / "walks.png", steps=2),
    "score": lambda run_dir, out: uses.score(
        run_dir, out / OWN, out / "scores.csv", held_out=out / OWN, importance_samples=1
    ),
}


def write_own_images(folder):
    """Two images of the run's size."""
    np.savez(folder / OWN, images=np.zeros([2, 16, 16, 1], np.uint8))


def train(run_dir, num_steps=8, after_step=None, parameters=()):
    """`loop.train` of a VAE that starts within seconds, without the pictures at its end.

    Args:
      run_dir: folder of the run.
      num_steps: int.
      after_step: None, or a function (step, trainer's state) called after each step, before anything is written of it.
      parameters: further gin bindings.

    Returns:
      The training's `Outcome`.
    """
    state = {}
    restore = recorder.Recorder.restore
    advance = monitor.Monitor.advance
    draw = recorder.Recorder.draw_final_pictures

    def remembering(self, groups):
        state.update(groups)
        return restore(self, groups)

    def hooked(self):
        advance(self)
        if after_step is not None:
            after_step(int(keras.ops.convert_to_numpy(state["generator_optimizer"][0])), state)

    loading.parse_gin([str(PLAIN)], [f"num_steps={num_steps}", *_PARAMETERS, *parameters])
    recorder.Recorder.restore = remembering
    monitor.Monitor.advance = hooked
    recorder.Recorder.draw_final_pictures = lambda *_: None
    try:
        return loop.train(Recipe(), str(run_dir))
    finally:
        recorder.Recorder.restore = restore
        monitor.Monitor.advance = advance
        recorder.Recorder.draw_final_pictures = draw
        gin.clear_config()


def checkpoint_steps(run_dir):
    """Steps of the whole checkpoints of a run, ascending."""
    return sorted(int(path.name) for path in (Path(run_dir) / "checkpoints").glob("[0-9]*"))
