"""Trains a configuration for a few steps on random images and prints what it took, after each of several batch sizes:

    python tests/configurations/peak_memory.py 8,64 paper/pivae.gin train.critic=None

A line for each: bytes of a step's tensors, as estimated; the most that the process has held so far. A process of its
own: the peak of its memory is the training step's.
"""

import re
import sys
from pathlib import Path

from tf_pivae import loading
from tf_pivae.system.startup import import_tensorflow_quietly

import_tensorflow_quietly()
loading.parse_gin([word for word in sys.argv[2:] if "=" not in word], [word for word in sys.argv[2:] if "=" in word])

import numpy as np  # noqa: E402  after the quiet import of TensorFlow
import tensorflow as tf  # noqa: E402

from tf_pivae.describe import architecture  # noqa: E402
from tf_pivae.describe.graph_cost import peak_bytes  # noqa: E402

tf.config.threading.set_inter_op_parallelism_threads(1)
trainer, data, _ = architecture.configured()
for batch_size in map(int, sys.argv[1].split(",")):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (batch_size, *data.image_shape)), tf.uint8)
    step = tf.function(trainer.train_step, autograph=False).get_concrete_function(images)
    for _ in range(3):
        float(step(images)["gradient_norm"])
    held = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(peak_bytes(step.graph), 1024 * int(held[1]), flush=True)
