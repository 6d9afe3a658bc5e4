import subprocess
import sys

CODE = """
import sys
import numpy as np
from tf_pivae import metrics
a = np.random.default_rng(0).normal(size=(50, 4))
assert metrics.frechet_distance(a, a) < 1e-9
metrics.kernel_distance(a, a), metrics.inception_score(a)
assert callable(metrics.inception_score) and callable(metrics.kernel_distance) and callable(metrics.image_scores)
assert not {"tensorflow", "keras", "torch", "scipy"} & set(sys.modules), "slow imports"
"""


def test_scores_of_arrays_need_numpy_only():
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_every_public_name_exists():
    from tf_pivae import metrics

    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__, name
