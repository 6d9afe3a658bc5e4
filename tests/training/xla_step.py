"""The compiled step is the step: VAE, flow, critic with its second derivatives, both optimisers, the moving average.

python xla_step.py DEVICE, such as CPU:0.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

sys.path.append(str(Path(__file__).parent.parent))
import devices
from small_trainer import SHAPE, assert_same_weights, small_images, small_trainer
from weights import randomize


def main():
    keras.utils.set_random_seed(0)
    options = dict(moving_average=True, free_nats=0.3, adversarial_weight=3.0, learning_rate=1e-3)
    plain, compiled = (small_trainer(randomize, **options) for _ in range(2))
    compiled.jit_compile = True
    functions = [
        tf.function(trainer.train_step, autograph=False, jit_compile=trainer.jit_compile)
        for trainer in (plain, compiled)
    ]
    for i in range(2):
        expected, results = ({k: float(v) for k, v in f(tf.constant(small_images(seed=i))).items()} for f in functions)
        assert expected.keys() == results.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(results[name], value, rtol=2e-4, atol=2e-4, err_msg=name)
    assert_same_weights(plain, compiled, steps=2, learning_rate=1e-3)
    graph = functions[1].get_concrete_function(tf.TensorSpec([8, *SHAPE], tf.uint8)).graph
    assert not {"PyFunc", "EagerPyFunc", "Print", "PrintV2"} & {op.type for op in graph.get_operations()}
    print("the same")


if __name__ == "__main__":
    with tf.device(sys.argv[1]), devices.tensor_float_32(False):
        main()
