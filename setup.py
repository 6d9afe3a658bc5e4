"""Installs the package `tf_pivae`, with its gin files (from gin/) and `tf_pivae.export` (from export/)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# Read, not imported: at this point nothing that the package needs is installed.
README = (HERE / "README.md").read_text("utf-8")
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "tf_pivae/version.py").read_text("utf-8"), re.MULTILINE)[1]

REQUIREMENTS = [
    # The networks, the training loop, tf.data, tf.distribute and the SavedModel.
    "tensorflow>=2.21,<3",
    # Keras 3 alone: layers, optimisers, `train_step`. TensorFlow brings it along, but any version from 3.12.
    "keras>=3.12,<4",
    # Bijectors and distributions. The extra `tf` is tf-keras, without which its import fails beside Keras 3.
    "tensorflow-probability[tf]>=0.25,<1",
    # `tf.summary` writes nothing without it, and TensorFlow no longer brings it along.
    "tensorboard>=2.20,<3",
    # Public data sets by name.
    "tensorflow-datasets>=4.9.8,<5",
    # TensorFlow Datasets imports it, yet declares it for Python 3.8 and older only.
    "importlib_resources>=5.12",
    # The flags of the commands.
    "absl-py>=2.1,<3",
    # The configurations in gin/.
    "gin-config>=0.5,<1",
    # Images on the host are uint8 arrays or memory maps.
    "numpy>=2,<3",
    # Reads image files, draws the grids.
    "pillow>=11",
    # Progress bars.
    "tqdm>=4.66,<5",
    # The live table of a sweep; Keras brings it along anyway.
    "rich>=13",
]

EXTRAS = {
    # `make test`: the runner, pytest-xdist for two of them side by side, the linter, the checker of types, SciPy as a
    # second opinion on distances, PyYAML for the serving manifests, setuptools to build the wheel under test without a
    # network, twine to check it, nbclient and a kernel to run the notebook.
    "dev": [
        "pytest>=8,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.12",
        "mypy>=1.18",
        "scipy>=1.14,<2",
        "PyYAML>=6.0.2,<7",
        "setuptools>=77",
        "twine>=6.1",
        "nbclient>=0.10,<1",
        "ipykernel>=7,<8",
    ],
    # `make docs`: the site. Zensical succeeds MkDocs and its theme Material, of which the one rests and the other ends
    # in 2027; mkdocstrings reads the docstrings and imports nothing.
    "docs": ['zensical>=0.0.73; python_version >= "3.11"', 'mkdocstrings-python>=2,<3; python_version >= "3.11"'],
    # Independent implementations of the metrics that tests compare with; those tests are skipped without them.
    "peers": ["torch>=2.6,<3", "torchvision>=0.21,<1", "torch-fidelity>=0.4,<0.5"],
    # `make bench`: what users would pick instead. nflows too, but without what it depends on: see the Makefile.
    "bench": ["torch>=2.6,<3", "normflows>=1.7,<2"],
    # `make gpu`: the CUDA libraries that TensorFlow was built for.
    "gpu": ["tensorflow[and-cuda]>=2.21,<3"],
    # Sweeps over a cluster: `--launcher=ray` leaves the scheduling to Ray. `make test` installs it too.
    "ray": ["ray>=2.40,<3"],
    # Exported models on a Ray cluster (`tf_pivae.export.ray_serve`): what the part of Ray that serves imports. Its own
    # extra, `ray[serve]`, has some 30 packages more, for its dashboard, tracing and reloading.
    "ray-serve": [
        "ray>=2.60,<3",
        "fastapi>=0.133,<1",
        "uvicorn>=0.40,<1",
        "grpcio-reflection>=1.74,<2",
        "watchfiles>=1,<2",
    ],
    # Published models on the Hugging Face hub: `publish --to=hub`, `load("hf://OWNER/NAME")`.
    "hub": ["huggingface_hub>=1,<3"],
    # MLflow's client, for the logger of docs/guides/extending.md. (The whole of MLflow wants an older pyarrow.)
    "mlflow": ["mlflow-skinny>=3.10,<4"],
    # What MLflow's own server imports beside its client: a test trains against it.
    "mlflow-server": [
        'mlflow-skinny>=3.10,<4; python_version >= "3.11"',
        'alembic>=1.16,<2; python_version >= "3.11"',
        'fastapi>=0.133,<1; python_version >= "3.11"',
        'flask>=3.1,<4; python_version >= "3.11"',
        'flask-cors>=6,<7; python_version >= "3.11"',
        'graphene>=3.4,<4; python_version >= "3.11"',
        'huey>=3,<4; python_version >= "3.11"',
        'pandas>=2.3,<4; python_version >= "3.11"',
        'sqlalchemy>=2,<3; python_version >= "3.11"',
        'uvicorn>=0.40,<1; python_version >= "3.11"',
    ],
    # Exported models without TensorFlow: `tf_pivae.export.load(..., runtime="openvino")`.
    "openvino": ["openvino>=2026.2"],
    # TensorFlow Serving's messages and stubs and the channel they use; the development server's REST and metrics.
    "serving": [
        "tensorflow-serving-api>=2.19,<3",
        "grpcio>=1.74,<2",
        "aiohttp>=3.14,<4",  # Its keep-alive timeout covers a first request, too.
        "prometheus-client>=0.22,<1",
    ],
}


def _for_an_index(text: str) -> str:
    """Markdown that is read far from the repository: links into it become the names of its files."""
    text = re.sub(r"!\[([^]]*)\]\((?!https?:)([^)]*)\)", r"*\1* (`\2`)", text)
    text = re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*\1)\)", r"`\2`", text)
    return re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*)\)", r"\1, `\2`", text)


# Folders beside the package that are installed inside it. gin/ must never hold an __init__.py: in a clone it would
# shadow the package `gin` of gin-config.
MAPPED = {"tf_pivae.export": "export", "tf_pivae.gin_files": "gin"}

setup(
    name="tf-pivae",
    version=VERSION,
    description="Partially invertible variational autoencoders in TensorFlow, trained by likelihood and adversary",
    long_description=_for_an_index(README),
    long_description_content_type="text/markdown",
    project_urls={"Paper": "https://hal.science/hal-01886285v2"},
    keywords=[
        "generative model",
        "variational autoencoder",
        "normalizing flow",
        "Real-NVP",
        "GAN",
        "likelihood",
        "TensorFlow",
        "Keras",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: GPU",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        *(
            f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)
        ),  # TensorFlow has wheels for these.
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    packages=[
        *find_packages(include=["tf_pivae", "tf_pivae.*"]),
        *MAPPED,
        *(f"tf_pivae.export.{name}" for name in find_packages("export")),
    ],
    package_dir=MAPPED,
    entry_points={"console_scripts": ["tf-pivae = tf_pivae.__main__:main"]},
    package_data={
        "tf_pivae": ["py.typed", "pretrained/*/*", "pretrained/*/checkpoints/*/*"],
        "tf_pivae.gin_files": ["**/*.gin"],
        "tf_pivae.data.bundled": ["*.npz"],
        "tf_pivae.metrics.packaged_statistics": ["*.npz", "*.json"],
        "tf_pivae.export": ["serving/*"],
        "tf_pivae.report": ["assets/*"],
    },
    include_package_data=False,
    zip_safe=False,
    # Not build/: where file names ignore case, that is the file BUILD.
    options={"build": {"build_base": "dist/build"}},
)
