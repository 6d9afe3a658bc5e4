"""Prints the bytes that 56 images more need in a training step of Table 1's PiVAE: as estimated, and as measured.

A process of its own: the peak of its memory is the training step's.
"""

import re
from pathlib import Path

from tf_pivae import loading

loading.parse_gin(["paper/pivae.gin"])

import numpy as np  # noqa: E402  after the quiet import of TensorFlow
import tensorflow as tf  # noqa: E402

from tf_pivae.describe import architecture  # noqa: E402
from tf_pivae.describe.graph_cost import peak_bytes  # noqa: E402

tf.config.threading.set_inter_op_parallelism_threads(1)
trainer, data, _ = architecture.configured()
estimated = []
measured = []
for batch_size in (8, 64):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (batch_size, *data.image_shape)), tf.uint8)
    step = tf.function(trainer.train_step, autograph=False).get_concrete_function(images)
    estimated.append(peak_bytes(step.graph))
    for _ in range(3):
        float(step(images)["bits_per_dim"])
    measured.append(1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]))
print(estimated[1] - estimated[0], measured[1] - measured[0])
