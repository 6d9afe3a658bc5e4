"""Partially invertible variational autoencoders, trained by likelihood and by an adversary.

The public names are loaded on first use, so that `import tf_pivae` (and `--help` of every command) does not pay for
TensorFlow:

    model = tf_pivae.load(run_dir)         # a trained `PiVAE`, or one of tf_pivae.pretrained()
    model.log_prob(images)                 # [B] float32, nats
    model.sample(16, seed=0)               # uint8 [16, H, W, C]
"""

import importlib
import os

from tf_pivae import quiet

__version__ = "0.1.0"

# TensorFlow turns oneDNN's convolutions on by itself only on processors with AVX-512; with AVX2 they are two to three
# times as fast as its own. It reads the variable when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_PUBLIC = {
    "PiVAE": "tf_pivae.models.pivae",
    "UserError": "tf_pivae.errors",
    "load": "tf_pivae.training.runs",
    "metrics": None,
    "pretrained": "tf_pivae.training.pretrained",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tf_pivae' has no attribute {name!r}")
    if name in ("PiVAE", "load"):
        quiet.import_tensorflow()
    module = _PUBLIC[name]
    if module is None:
        return importlib.import_module(f"tf_pivae.{name}")
    return getattr(importlib.import_module(module), name)


def __dir__():
    return sorted(__all__)
