"""Small exported models: grey with IAF and flow, and a class-conditional one in colour."""

import functools
import pickle
import shutil
from typing import NamedTuple

import keras
import numpy as np
import pytest
import servers
import talking
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
from tf_pivae.export.write.warmup import write_warmup_requests
from tf_pivae.models.hierarchical_vae import plain_vae, residual_vae
from tf_pivae.models.latents import GaussianPosterior, IAFPosterior
from tf_pivae.models.pivae import PiVAE


class Exported(NamedTuple):
    """A model and its SavedModel."""

    model: PiVAE
    folder: str
    options: Options
    functions: dict
    images: np.ndarray  # uint8 [64, H, W, C]
    labels: np.ndarray | None  # int64 [64]


def _residual(image_shape, num_classes):
    sizes = dict(stem_width=6, widths=(8, 8), top_channels=2, latent_channels=2)
    return residual_vae(image_shape, posterior=IAFPosterior, num_classes=num_classes, **sizes)


def _plain(image_shape, num_classes):
    sizes = dict(widths=(8, 8), top_channels=3, latent_channels=2)
    return plain_vae(image_shape, posterior=GaussianPosterior, num_classes=num_classes, **sizes)


def _flow(image_shape):
    return RealNVP(image_shape, num_blocks=1, width=6)


def _export(model, folder, options):
    rng = np.random.default_rng(3)
    images = rng.integers(0, model.num_bins, [64, *model.image_shape], dtype=np.uint8)
    labels = rng.integers(0, model.num_classes, [64]) if model.num_classes else None
    functions = write_saved_model(model, folder, options)
    return Exported(model, str(folder), options, functions, images, labels)


@pytest.fixture(scope="session")
def grey(randomize, tmp_path_factory):
    """Residual VAE with IAF behind a flow, 8x8x1, 256 levels."""
    keras.utils.set_random_seed(0)
    model = randomize(PiVAE((8, 8, 1), vae=_residual, flow=_flow), scale=0.05)
    return _export(model, tmp_path_factory.mktemp("grey") / "1", Options())


@pytest.fixture(scope="session")
def conditional(randomize, tmp_path_factory):
    """Plain VAE with three classes, 4x4x3, 200 levels, two importance samples, cooler samples."""
    keras.utils.set_random_seed(0)
    model = PiVAE((4, 4, 3), vae=_plain, flow=_flow, num_bins=200, num_classes=3)
    randomize(model, scale=0.05)
    return _export(model, tmp_path_factory.mktemp("conditional") / "1", Options(2, 0.7, 0.5))


class GraphSession:
    """A SavedModel in a session without eager execution, as TensorFlow Serving runs it, with its errors."""

    def __init__(self, folder):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], folder)
        self.signatures = graph.signature_def

    @functools.cache  # noqa: B019  as many as signatures
    def _callable(self, name, inputs):
        signature = self.signatures[name]
        feeds = [signature.inputs[key].name for key in inputs]
        fetches = [out.name for out in signature.outputs.values()]
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        return self._session._make_callable_from_options(options)  # `run` would look at shapes before the graph does.

    def __call__(self, signature, **inputs):
        outputs = self._callable(signature, tuple(inputs))(*inputs.values())
        return dict(zip(self.signatures[signature].outputs, outputs, strict=True))


@pytest.fixture(scope="session")
def graph_session():
    """`GraphSession`, a function of a folder."""
    return GraphSession


class Table(NamedTuple):
    """What a served version must answer: outputs of the graph itself, row by row."""

    images: np.ndarray  # uint8 [64, 4, 4, 1]
    files: np.ndarray  # PNGs of them
    seeds: np.ndarray  # int64 [64]
    latents: dict  # of the images
    prior: dict  # other latents
    log_prob: np.ndarray
    bits_per_dim: np.ndarray
    sampled: np.ndarray
    reconstructed: np.ndarray
    decoded: np.ndarray  # from `prior`


def _table(folder):
    run = GraphSession(folder)
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, [64, 4, 4, 1], dtype=np.uint8)
    seeds = rng.integers(-(2**63), 2**63 - 1, [64])
    files = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    latents = run("encode", images=images)
    sampled = run("sample", seeds=seeds)["images"]
    prior = {name: rng.normal(size=z.shape).astype(np.float32) for name, z in latents.items()}
    bound = run("log_prob", images=images)
    reconstructed = run("reconstruct", images=images)["images"]
    log_prob = bound["log_prob"]
    bits_per_dim = bound["bits_per_dim"]
    decoded = run("decode", **prior)["images"]
    return Table(images, files, seeds, latents, prior, log_prob, bits_per_dim, sampled, reconstructed, decoded)


class Published(NamedTuple):
    """Two versions of a small, fast model, not yet in a server's folder."""

    folders: tuple
    tables: tuple


@pytest.fixture(scope="session")
def published(randomize, made_once):
    """4x4x1, no flow; the second version has other weights. One process makes them for all."""

    def make(folder):
        keras.utils.set_random_seed(0)
        model = PiVAE((4, 4, 1), vae=_plain)
        for seed, version in enumerate("12"):
            randomize(model, seed, scale=0.1)
            functions = write_saved_model(model, folder / version, Options(importance_samples=2))
            images = np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4, 1)
            write_warmup_requests(folder / version, "pivae", functions, images, None)
        tables = [_table(str(folder / version))._asdict() for version in "12"]
        (folder / "tables.pickle").write_bytes(pickle.dumps(tables))

    folder = made_once("published", make)
    tables = pickle.loads((folder / "tables.pickle").read_bytes())
    return Published((folder / "1", folder / "2"), tuple(Table(**table) for table in tables))


@pytest.fixture(scope="module")
def export_dir(published, tmp_path_factory):
    """A folder that a server watches, with the first version of the small model."""
    folder = tmp_path_factory.mktemp("exports")
    shutil.copytree(published.folders[0], folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(export_dir):
    """A development server of `export_dir`, one for all tests of a file."""
    with servers.development(export_dir, f"--max_message_bytes={talking.MAX_BYTES}") as server:
        yield server
