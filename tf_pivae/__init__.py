"""Partially invertible variational autoencoders, trained by likelihood and by an adversary.

The public names are loaded on first use, so that `import tf_pivae` (and `--help` of every command) does not pay for
TensorFlow:

    model = tf_pivae.load(run_dir)         # a trained `PiVAE`, or one of tf_pivae.pretrained()
    model.log_prob(images)                 # [B] float32, nats
    model.sample(16, seed=0)               # uint8 [16, H, W, C]
    tf_pivae.train("runs/demo", "demo.gin")
"""

import importlib
import os
from typing import Any

from tf_pivae.system import quiet
from tf_pivae.version import __version__

# TensorFlow turns oneDNN's convolutions on by itself only on processors with AVX-512; with AVX2 they are two to three
# times as fast as its own. It reads the variable when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_MODULES = {"metrics": "tf_pivae.metrics", "threads": "tf_pivae.system.threads", "train": "tf_pivae.train"}
_PUBLIC = {
    "PiVAE": "tf_pivae.models.pivae",
    "UserError": "tf_pivae.errors",
    "load": "tf_pivae.loading",
    "pretrained": "tf_pivae.runs.pretrained",
}

__all__ = [*_PUBLIC, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tf_pivae' has no attribute {name!r}")
    if name in ("PiVAE", "load"):
        quiet.import_tensorflow()
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
