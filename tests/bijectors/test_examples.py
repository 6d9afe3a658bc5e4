"""The examples in the bijectors' docstrings, run as they stand."""

import doctest
import importlib
import pkgutil

import pytest
import tensorflow_probability as tfp

from tf_pivae import bijectors

NAMES = [module.name for module in pkgutil.iter_modules(bijectors.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    module = importlib.import_module(f"tf_pivae.bijectors.{name}")
    tests = {test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(module)}
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == module.__name__]
    classes = [thing for thing in own if isinstance(thing, type) and issubclass(thing, tfp.bijectors.Bijector)]
    public = [thing.__name__ for thing in classes if not thing.__name__.startswith("_")]
    assert all(tests[name].examples for name in public)
    assert any(test.examples for test in tests.values())
    for test in tests.values():
        assert not doctest.DocTestRunner(verbose=False).run(test).failed
