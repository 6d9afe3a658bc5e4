"""Trains a configuration for a few steps on random images and prints what it took:

    python tests/configurations/peak_memory.py 8 paper/pivae.gin train.critic=None

Bytes of a step's tensors, as estimated, and the most that the process held. A process of its own for each batch size:
a second traced step would be counted with the second size (some 40 MB of Table 1's PiVAE).
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
images = tf.constant(np.random.default_rng(0).integers(0, 256, (int(sys.argv[1]), *data.image_shape)), tf.uint8)
step = tf.function(trainer.train_step, autograph=False).get_concrete_function(images)
for _ in range(3):
    float(step(images)["gradient_norm"])
held = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
print(peak_bytes(step.graph), 1024 * int(held[1]))
