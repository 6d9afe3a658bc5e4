"""The docstrings, from which the site is made, say what they should."""

import importlib.util
import logging
import re

import pages
import pytest

griffe = pytest.importorskip("griffe", reason="the extra `docs` needs Python 3.11")
SPECIFICATION = importlib.util.spec_from_file_location("docstrings", pages.ROOT / "docs/docstrings.py")
docstrings = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(docstrings)


@pytest.fixture(scope="module")
def package():
    extensions = griffe.load_extensions(docstrings.Docstrings)
    return griffe.load("tf_pivae", search_paths=[pages.ROOT], docstring_parser="google", extensions=extensions)


def _below(thing):
    """A module or class, and everything public in it that it defines itself."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias and not member.name.startswith("_") and not member.is_attribute:
            yield from _below(member)


@pytest.fixture(scope="module")
def everything(package):
    return list(_below(package))


@pytest.fixture(scope="module")
def functions(everything):
    return [thing for thing in everything if thing.is_function and thing.docstring]


def test_everything_public_is_documented(everything):
    undocumented = [thing for thing in everything if not thing.docstring and thing.name != "main"]
    missing = [thing.path for thing in undocumented if thing.is_module or thing.parent.is_module]
    assert not missing


def test_every_described_argument_exists(everything, caplog):
    with caplog.at_level(logging.WARNING, "griffe"):
        for thing in everything:
            if thing.docstring:
                thing.docstring.parse("google", warn_missing_types=False)
    assert not caplog.messages


def test_arguments_of_longer_signatures_are_described(functions):
    """Those of a short one are often said by their names and the summary; those of a command's own by its flags."""
    missing = []
    for function in functions:
        if function.path == "tf_pivae.sweep.command.sweep" or function.path.startswith("tf_pivae.report."):
            continue
        names = [parameter.name for parameter in function.parameters if parameter.name not in ("self", "cls")]
        unsaid = [name for name in names if not re.search(rf"\b{name}\b", function.docstring.value)]
        if len(names) > 3:
            missing += [f"{function.path}: {name}" for name in unsaid]
    assert not missing


def test_errors_that_a_function_raises_itself_are_said(functions):
    missing = []
    for function in functions:
        raised = set(re.findall(r"^\s+raise (UserError|ValueError)\b", function.source, re.MULTILINE))
        text = function.docstring.value
        missing += [f"{function.path}: {error}" for error in raised if error not in text and "Raises" not in text]
    assert not missing


def test_arguments_that_share_a_description_are_told_apart(package):
    """ "images, labels: text" is the text of both."""
    (section,) = [
        section
        for section in package["figures.reconstruction_grid"].docstring.parse("google", warn_missing_types=False)
        if section.kind.value == "parameters"
    ]
    described = {item.name: item.description for item in section.value}
    assert described["images"] == described["reconstructions"]
