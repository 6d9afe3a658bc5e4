import keras
import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import callable_network, frechet_distance, image_scores, keras_network
from tf_pivae.metrics.inception_layout import FAST_NAME, NAME

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


def lenet():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Dense(6, activation="relu", name="penultimate")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x), name="lenet")


def test_a_keras_file_gives_scores_under_its_own_name(tmp_path):
    model = lenet()
    model.save(tmp_path / "lenet.keras")
    network = keras_network(tmp_path / "lenet.keras", example=IMAGES, feature_layer="penultimate")
    assert (network.name, network.feature_dim, network.has_logits) == ("lenet", 6, True)
    features = network(IMAGES)
    np.testing.assert_allclose(features.logits, model(IMAGES.astype(np.float32)), atol=1e-4)
    scores = image_scores(IMAGES, IMAGES[::-1], network, num_subsets=2, subset_size=10, progress=False)
    coverage = [f"{name}[lenet]" for name in ("Precision", "Recall", "Density", "Coverage")]
    assert [score.name for score in scores] == ["Frechet[lenet]", "Kernel[lenet]", *coverage, "Logit score[lenet]"]
    assert not any("FID" in str(score) or "Inception" in str(score) for score in scores)


def test_a_saved_model_directory(tmp_path):
    model = lenet()
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda x: {"features": model(x), "logits": 2 * model(x)},
        [keras.InputSpec(shape=(None, 8, 8, 1), dtype="float32")],
    )
    archive.write_out(str(tmp_path / "exported"))
    network = keras_network(tmp_path / "exported", example=IMAGES, pixel_range=(-1, 1))
    features = network(IMAGES)
    np.testing.assert_allclose(features.pool, model(IMAGES.astype(np.float32) / 127.5 - 1), atol=1e-5)
    np.testing.assert_allclose(features.logits, 2 * features.pool, atol=1e-5)
    assert network.name == "exported"


def test_checksum_follows_weights_layer_and_pixel_range(tmp_path):
    model = lenet()
    other = lenet()
    other.set_weights([weight + 1 for weight in other.get_weights()])
    networks = [
        keras_network(model, example=IMAGES),
        keras_network(lenet(), example=IMAGES),
        keras_network(other, example=IMAGES),
        keras_network(model, example=IMAGES, pixel_range=(0, 1)),
        keras_network(model, example=IMAGES, feature_layer="penultimate"),
    ]
    assert networks[0].checksum == networks[1].checksum
    assert len({network.checksum for network in networks}) == 4


def test_a_function_serves_too():
    network = callable_network(lambda images: images.reshape(len(images), -1)[:, :5], "pixels", example=IMAGES)
    (score,) = image_scores(IMAGES, IMAGES // 2, network, ["fid"], progress=False)
    pixels = IMAGES.reshape(40, -1)[:, :5].astype(float)
    np.testing.assert_allclose(score.value, frechet_distance(pixels, pixels // 2), rtol=1e-9)
    assert score.protocol.checksum == "unverified"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: callable_network(lambda x: x, NAME, example=IMAGES), "stands for the FID Inception"),
        (lambda path: callable_network(lambda x: x, FAST_NAME, example=IMAGES), "stands for the FID Inception"),
        (lambda path: callable_network(lambda x: x, "images", example=IMAGES), "a matrix"),
        (lambda path: keras_network(path / "absent.keras", example=IMAGES), "neither a model file nor"),
        (lambda path: keras_network(lenet(), example=IMAGES, feature_layer="pool"), "no layer 'pool'.*penultimate"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path)


def test_a_damaged_keras_file(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"x\.keras cannot be read") as caught:
        keras_network(tmp_path / "x.keras", example=IMAGES)
    assert "\n" not in str(caught.value)
