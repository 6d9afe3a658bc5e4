"""Which setting a swept name means."""

import gin
import pytest

from tf_pivae import loading
from tf_pivae.errors import UserError
from tf_pivae.sweep import names


@pytest.fixture(autouse=True)
def _clean():
    yield
    gin.clear_config()


def parsed(*parameters, file="demo.gin"):
    loading.parse_gin([file], parameters)


def test_macros_bindings_and_bare_parameters():
    parsed()
    assert names.resolve("adversarial_weight") == "adversarial_weight"
    assert names.resolve("learning_rate") == "Trainer.learning_rate"
    assert names.resolve("num_couplings") == "RealNVP.num_couplings"
    assert names.resolve("log_every") == "train.log_every"
    assert names.resolve("RealNVP.width") == "RealNVP.width"
    # residual_critic has one too, bound in a file that the demo includes, but nothing refers to it.
    assert names.resolve("stem_width") == "residual_vae.stem_width"


def test_what_is_in_use_follows_references_macros_and_defaults():
    parsed("train.critic=@residual_critic", "adversarial_weight=1.0")
    with pytest.raises(UserError, match=r"could be residual_critic\.stem_width or residual_vae\.stem_width"):
        names.resolve("stem_width")
    parsed("the_critic=@residual_critic", "train.critic=%the_critic")
    assert names.in_use("residual_critic.widths")
    assert not names.in_use("plain_critic.widths")
    assert names.in_use("the_critic")
    parsed("PiVAE.vae=@plain_vae")
    assert not names.in_use("residual_vae.widths")
    loading.parse_gin([], ["train.dataset=@bundled", "train.num_steps=1"], required=False)
    assert names.resolve("stem_width") == "residual_vae.stem_width"  # train -> PiVAE -> residual_vae, by default
    assert names.in_use("IAFPosterior.num_layers") is False
    assert names.in_use("nowhere.x") is False


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("widths", "could be plain_critic.widths or residual_vae.widths"),
        ("learning_rat", "did you mean learning_rate"),
        ("qqq", "macros: adversarial_weight, batch_size, num_steps, seed"),
        ("run_dir", "there is no setting 'run_dir' to sweep"),
        ("image_shape", "there is no setting 'image_shape' to sweep"),
    ],
)
def test_names_that_mean_nothing_or_too_much(name, expected):
    parsed()
    with pytest.raises(UserError, match=expected) as caught:
        names.resolve(name)
    assert "\n" not in str(caught.value)
