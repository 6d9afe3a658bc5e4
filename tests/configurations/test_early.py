"""Wrong names are refused from the sources alone, in the words of the reader that needs TensorFlow."""

import subprocess
import sys

import gin
import pytest

from tf_pivae import configuration, loading
from tf_pivae.configuration import early, parsing, registry
from tf_pivae.errors import UserError, first_line


def line(read, parameters, files=("demo.gin",)):
    with pytest.raises(UserError) as caught, configuration.preserved():
        read(files, parameters)
    return first_line(caught.value)  # gin adds where it was read.


@pytest.mark.parametrize(
    "parameter",
    [
        "num_step=4",
        "learning_rate=0.1",
        "zzz=1",
        "RealNVP.num_scale=2",
        "RealNPV.num_scales=2",
        "models.RealNPV.num_scales=2",
        "critic/RealNPV.num_scales=2",
        "bundled.image_sise=16",
        "train.dataset=@bundle",
        "train.dataset=[@critic/bundle()]",
        "num_steps",
        "num_steps=4 4",
        "train.num_steps=%num_step",
    ],
)
def test_lines_are_those_of_the_reader(parameter):
    """But for what they suggest: Keras has classes that are no settings here."""
    loading.register()
    expected = line(parsing.parse, [parameter])
    if parameter == "train.num_steps=%num_step":  # Certain only when everything is read.
        assert early.refuse_wrong_names(["demo.gin"], [parameter]) is None
    else:
        assert line(early.refuse_wrong_names, [parameter]) == expected


def test_files_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outer.gin").write_text("include 'demo.gin'\ninclude 'inner.gin'\n")
    (tmp_path / "inner.gin").write_text("RealNPV:\n  num_scales = 2\n")
    (tmp_path / "circle.gin").write_text("include 'circle.gin'\n")
    (tmp_path / "deep.gin").write_text(f"train.num_steps = {'[' * 5000}")
    loading.register()
    for name in ("outer.gin", "outter.gin", "circle.gin"):
        assert line(early.refuse_wrong_names, [], [name]) == line(parsing.parse, [], [name])
    early.refuse_wrong_names(["deep.gin"], [])  # Left to the reader, whose line it is.
    line(parsing.parse, [], ["deep.gin"])


def test_nothing_right_is_refused():
    for name in parsing.shipped_files():
        fragment = name.startswith(("options/", "presets/", "models/", "datasets/"))
        early.refuse_wrong_names(["demo.gin", name] if fragment else [name], [])


def test_every_name_that_is_registered_is_known():
    loading.register()
    parameters_of = {**early._keras_names(), **early._names()}
    ours = {
        selector.rsplit(".", 1)[-1]
        for selector, configurable in gin.config._REGISTRY._selector_map.items()
        if configurable.wrapped.__module__.startswith(("tf_pivae.", "keras."))
    }
    assert ours
    for name in ours:
        assert name in parameters_of
        assert parameters_of[name] is None or parameters_of[name] == list(registry.parameters(name))


def test_tensorflow_is_not_imported_for_it():
    program = (
        "import sys; from tf_pivae import errors, loading\n"
        "try: loading.parse_gin(['demo.gin'], ['num_step=4'])\n"
        "except errors.UserError as error: print(error, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "nothing uses the macro 'num_step'; did you mean num_steps? False\n"
