"""A larger model that computes the same."""

import keras
import numpy as np
import pytest

import tf_pivae
from benchmarks.grow import _take_over, grow
from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.runs import changes


def _densities(*folders):
    images = loading.load_dataset(folders[0]).test.images[:16]
    return [tf_pivae.load(folder).log_prob(images, num_importance_samples=2) for folder in folders]


@pytest.mark.slow
def test_a_wider_head_computes_the_same(finished, tmp_path):
    narrow = finished[0]
    wide = tmp_path / "wide"
    assert grow(narrow, wide, ["RealNVP.width = 12"]) == 12
    assert changes.history(wide) == [{"from_step": 12, "settings": {"RealNVP.width": ["8", "12"]}}]
    before, after = _densities(narrow, wide)
    np.testing.assert_allclose(after, before, rtol=1e-5)
    before = tf_pivae.load(narrow)
    after = tf_pivae.load(wide)
    assert [v.shape for v in before.inference_variables] == [v.shape for v in after.inference_variables]
    kernels = [conditioner.output_conv.v.numpy() for conditioner in after.flow.scales[0][0].conditioners]
    assert all(kernel.shape[2] == 12 and not kernel[:, :, 8:].any() for kernel in kernels)


def test_any_layer_may_be_wider_and_the_rest_goes_on(finished, tmp_path):
    """Those of the tails: the same probabilities, and where they did not change the weights and both moments."""
    narrow = tmp_path / "narrow"
    wide = tmp_path / "wide"
    assert grow(finished[0], narrow, ["PiVAE.dequantization = @NormalEdgeBins", "TailNetwork.width = 8"]) == 12
    assert grow(narrow, wide, ["TailNetwork.width = 12"]) == 12
    before, after = _densities(narrow, wide)
    np.testing.assert_allclose(after, before, rtol=1e-5)
    trained, ours, theirs = (_variables(folder) for folder in (finished[0], narrow, wide))
    assert set(trained) < set(ours) == set(theirs)
    assert all("dequantization" in name for name in set(ours) - set(trained))
    assert all(np.array_equal(trained[name], theirs[name]) for name in trained)
    assert any(trained[name].any() for name in trained if name.startswith("generator_optimizer"))


def _variables(run_dir):
    """Every variable of a run's checkpoint, by group and path; this head has one scale, so that no two share a name."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints/00000012/checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    values = {}
    for name in names:
        group, _, rest = name.partition("/")
        values[f"{group}/{rest.partition(' ')[2]}"] = reader.get_tensor(name)
    assert len(values) == len(names)
    return values


def test_scales_share_names_and_keep_their_order():
    def variables(*named):
        return [keras.Variable(np.full(size, value), name=name) for name, size, value in named]

    old = variables(("g", 2, 1.0), ("b", 2, 2.0), ("g", 3, 3.0))
    new = variables(("g", 2, 0.0), ("b", 3, 0.0), ("tails", 2, 0.0), ("g", 4, 0.0))
    _take_over(old, new)
    assert [variable.numpy().tolist() for variable in new] == [[1.0] * 2, [2.0, 2.0, 0.0], [0.0] * 2, [3.0] * 3 + [0.0]]


def test_a_model_is_not_made_smaller(finished, tmp_path):
    with pytest.raises(UserError, match=r" is \[.*8.*\], the new model has \[.*6.*\]: choose other settings\.$"):
        grow(finished[0], tmp_path / "small", ["RealNVP.width = 6"])
    with pytest.raises(UserError, match=r", the new model has none: choose other settings\.$"):
        grow(finished[0], tmp_path / "small", ["RealNVP.num_couplings = 1"])
    assert not (tmp_path / "small").exists()
