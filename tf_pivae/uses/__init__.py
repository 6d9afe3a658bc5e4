"""What people do with a trained model: each function is a command of the same name and the same arguments.

from tf_pivae.uses import sample
sample("fashion_mnist", "samples/", num_samples=50_000)
"""

from tf_pivae.uses.sampling import sample
from tf_pivae.uses.scoring import score
from tf_pivae.uses.walks import interpolate, reconstruct

__all__ = ["interpolate", "reconstruct", "sample", "score"]
