"""Scores of images and features. Knows nothing of models, runs or their configuration.

Names load on first use: the distances and scores of plain arrays need NumPy only, and never import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "bits_per_dim": ("BitsPerDim", "Estimate"),
    "frechet": ("frechet_distance", "frechet_distance_from_moments"),
    "feature_moments": ("Moments", "StreamingMoments", "moments_of"),
    "kernel": ("KernelDistance", "kernel_distance", "kernel_distance_subsets"),
    "manifold": ("ManifoldScores", "manifold_scores"),
    "inception_scores": ("InceptionScore", "inception_score"),
    "features": ("FeatureNetwork", "Features", "callable_network", "keras_network"),
    "inception": ("inception_network",),
    "extraction": ("Extraction", "extract"),
    "reference": ("ReferenceKey", "reference_statistics"),
    "image_folder": ("images_from_folder",),
    "nearest": ("nearest_images",),
    "latent_groups": ("MIN_GROUP_BITS", "describe_groups", "groups_in_use"),
    "scores": ("Protocol", "RealSubset", "Score", "check_possible", "image_scores", "real_subsets"),
    "gan_classification": ("ClassifierConfig", "GanTrainTest", "gan_train_test", "train_classifier"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
