"""What the methods of a model say of wrong arguments."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_pivae
from tf_pivae import arguments
from tf_pivae.errors import NotFinite, UserError, nan_is_an_error
from tf_pivae.runs.pretrained import resolve


@pytest.fixture(scope="module")
def model(finished):
    return tf_pivae.load(finished[0])


@pytest.fixture(scope="module")
def images(model):
    return np.zeros((2, *model.image_shape), np.uint8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_importance_samples": 1.5}, "`num_importance_samples` must be a whole number; got 1.5."),
        ({"num_importance_samples": True}, "`num_importance_samples` must be a whole number; got True."),
        ({"num_importance_samples": 0}, "`num_importance_samples` must be at least 1; got 0."),
        ({"num_importance_samples": 10**11}, "`num_importance_samples` must be at most 2147483647; got 100000000000."),
        ({"seed": 1.5}, "`seed` must be a whole number; got 1.5."),
        ({"seed": None}, "`seed` must be a whole number; got None."),
        ({"seed": 10**30}, f"`seed` must be at most {2**63 - 1}; got 1{'0' * 30}."),
        ({"seed": -(2**63) - 1}, f"`seed` must be at least {-(2**63)}; got -9223372036854775809."),
        ({"first_row": -1}, "`first_row` must be at least 0; got -1."),
        ({"first_row": "0"}, "`first_row` must be a whole number; got '0'."),
        ({"first_row": 2**40}, f"`first_row` must be at most {2**40 - 1}; got {2**40}."),
        ({"batch_size": 2.0}, "`batch_size` must be a whole number; got 2.0."),
    ],
)
def test_likelihoods(model, images, values, message):
    with pytest.raises(ValueError) as error:
        model.log_prob(images, **values)
    assert str(error.value) == message
    if "num_importance_samples" not in values:
        with pytest.raises(ValueError) as error:
            model.sample(2, **values)
        assert str(error.value) == message
    if set(values) <= {"seed", "batch_size"}:
        with pytest.raises(ValueError, match=message.partition(";")[0]):
            model.reconstruct(images, **values)
    if set(values) <= {"seed", "first_row"}:
        with pytest.raises(ValueError, match=message.partition(";")[0]):
            model.bound_terms(images, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_samples": "4"}, "`num_samples` must be a whole number; got '4'."),
        ({"num_samples": -1}, "`num_samples` must be at least 0; got -1."),
        ({"num_samples": 1, "temperature": "1"}, "`temperature` must be finite and at least 0; got '1'."),
        ({"num_samples": 1, "sample_noise": math.nan}, "`sample_noise` must be finite and at least 0; got nan."),
        ({"num_samples": 1, "temperature": 3.5e38}, "`temperature` must be finite and at least 0; got 3.5e+38."),
        ({"num_samples": 1, "sample_noise": 10**309}, f"`sample_noise` must be finite and at least 0; got {10**309}."),
    ],
)
def test_samples(model, values, message):
    with pytest.raises(ValueError) as error:
        model.sample(**values)
    assert str(error.value) == message


def test_the_last_row_has_noise_of_its_own(model, images):
    last = arguments.ROWS[1]
    assert (model.sample(2, first_row=last) != model.sample(2)).any()
    assert (model.log_prob(images, first_row=last, batch_size=1) != model.log_prob(images)).all()


def test_masked_and_odd_arrays_are_refused(model, images):
    mask = np.zeros(images.shape, bool)
    mask[0, 0] = True
    with pytest.raises(ValueError, match=r"`images` has masked values: fill them, `images.filled"):
        model.log_prob(np.ma.masked_array(images, mask))
    model.log_prob(np.ma.masked_array(images, False))
    with pytest.raises(ValueError, match=r"`images` must be integers in \[0, 256\), such as uint8; got timedelta64"):
        model.log_prob(images.astype("m8[s]"))
    latents = model.encode(images)
    name = next(iter(latents))
    for kind, name_of_it in (("U16", "<U16"), (complex, "complex128"), (object, "object")):
        with pytest.raises(ValueError, match=f"`{name}` must be floats; got {name_of_it}"):
            model.decode({**latents, name: latents[name].astype(kind)})
    for wrong in (None, [1], {}):
        with pytest.raises(ValueError, match=r"`latents` must be a dict of .*; got none in a"):
            model.decode(wrong)
    for wrong in (None, iter(images)):
        with pytest.raises(ValueError, match="`images` must be"):
            model.interpolate(wrong, images)


def test_methods_of_arrays_are_not_for_graphs(model, images):
    message = "this takes and returns NumPy arrays: call it outside of tf.function"
    with pytest.raises(ValueError, match=message):
        tf.function(lambda: model.sample(1))()
    with pytest.raises(ValueError, match=message):
        tf.function(model.log_prob)(tf.constant(images))
    with pytest.raises(ValueError, match=message):
        tf.data.Dataset.from_tensors(images).map(model.reconstruct)
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_array_equal(tf.function(lambda: model.sample(1))(), model.sample(1))
    finally:
        tf.config.run_functions_eagerly(False)


def test_another_strategy_s_scope_is_not_the_models(finished):
    model = tf_pivae.load(finished[0])
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope(), pytest.raises(ValueError, match="outside of the scope of"):
        model.sample(1)
    assert model.sample(1).shape[0] == 1


def test_a_forked_process_says_that_it_has_no_threads(model):
    model.sample(1)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            model.sample(1)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert "forked from the one that has the model" in pipe.read()
    os.waitpid(child, 0)


def test_numpy_s_numbers_are_numbers(model):
    one = model.sample(np.int64(1), seed=np.uint64(7), temperature=np.float32(0.5), first_row=np.int32(2))
    np.testing.assert_array_equal(one, model.sample(1, seed=7, temperature=0.5, first_row=2))
    for seed in arguments.SEEDS:
        assert model.sample(1, seed=seed).shape == one.shape


@pytest.mark.parametrize("step", [np.int64(4), np.uint8(4)])
def test_a_step_of_numpy_is_that_step(finished, step):
    assert tf_pivae.loading.load_with_step(finished[0], step)[1] == 4


@pytest.mark.parametrize("step", [4.0, np.float64(4.0), True, -1])
def test_a_step_is_a_whole_number(finished, step):
    with pytest.raises(ValueError, match="`step` must be"):
        tf_pivae.load(finished[0], step=step)


def test_samples_that_are_nan_are_warned_of(model):
    too_large = dict(temperature=1e38, sample_noise=1e38)
    with pytest.warns(NotFinite, match="3 of 3 images have pixels that are NaN: the weights have diverged, or"):
        model.sample(3, **too_large)
    with pytest.raises(UserError, match="have pixels that are NaN"), nan_is_an_error():
        model.sample(3, **too_large)


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["runs"]])
def test_no_path(wrong):
    with pytest.raises(ValueError, match="`run_dir` must be a path or a name; got"):
        tf_pivae.load(wrong)
    assert resolve(Path("runs/x")) == Path("runs/x")
