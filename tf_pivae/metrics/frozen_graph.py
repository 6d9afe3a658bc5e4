"""Reads the constants of a frozen TensorFlow graph (`.pb`, or a `.tgz` that holds one) without running it."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib

import numpy as np

from tf_pivae.errors import UserError, first_line, sentence
from tf_pivae.system import quiet

GRAPH_FILE = "classify_image_graph_def.pb"  # its name inside inception-2015-12-05.tgz
MAX_BYTES = 1 << 30


def read_graph(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """Constants of a GraphDef, and whether each batch normalisation applies its gamma.

    Args:
      path: a serialised GraphDef, or a tar archive (compressed or not) with `classify_image_graph_def.pb` inside.

    Returns:
      (constants, scaled): node name -> array for every floating-point `Const`; name of each
      `BatchNormWithGlobalNormalization` node -> its attribute `scale_after_normalization`.

    Raises:
      UserError: the file cannot be read, is not a GraphDef, or the archive has no graph.
    """
    quiet.import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2
    from tensorflow.python.framework.tensor_util import MakeNdarray

    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(_graph_bytes(path))
    except DecodeError as error:
        raise UserError(f"{path} is not a frozen TensorFlow graph.") from error
    try:
        constants = {node.name: MakeNdarray(node.attr["value"].tensor) for node in graph.node if node.op == "Const"}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {sentence(first_line(error))} Get it again.") from error
    scaled = {
        node.name: node.attr["scale_after_normalization"].b
        for node in graph.node
        if node.op == "BatchNormWithGlobalNormalization"
    }
    return {name: array for name, array in constants.items() if array.dtype == np.float32}, scaled


def _graph_bytes(path: str | os.PathLike) -> bytes:
    try:
        if not tarfile.is_tarfile(path):
            with open(path, "rb") as file:
                return file.read()
        with tarfile.open(path) as archive:
            # Read from the archive, never extracted: its paths touch no disk.
            for member in archive:
                if member.isfile() and member.name.rsplit("/", 1)[-1] == GRAPH_FILE:
                    if member.size > MAX_BYTES:
                        raise UserError(f"{path}: {member.name} is larger than {MAX_BYTES >> 20} MiB.")
                    return archive.extractfile(member).read()
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    raise UserError(f"{path} holds no {GRAPH_FILE}: get inception-2015-12-05.tgz.")
