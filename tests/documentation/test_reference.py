"""docs/api/ is what the docstrings say, and the docstrings say what they should."""

import importlib.util
import re

import pages
import pytest

SPECIFICATION = importlib.util.spec_from_file_location("reference", pages.ROOT / "docs/reference.py")
reference = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(reference)


@pytest.fixture(scope="module")
def modules():
    return [module for found in reference.modules().values() for module in found]


def functions(modules):
    """The public functions and methods of the reference, and the classes' initialisers by their class."""
    for module in modules:
        for member in reference.members(module):
            if member.is_function:
                yield member
            else:
                yield from (method for method in reference.methods(member) if method.is_function)


def test_pages_are_what_the_docstrings_say():
    written = {path.name: path.read_text("utf-8") for path in reference.OUTPUT.iterdir()}
    rendered = reference.render()
    assert written.keys() == rendered.keys(), "run `make docs`"
    changed = [name for name in rendered if rendered[name] != written[name]]
    assert not changed, "run `make docs`"


def test_everything_public_is_documented(modules):
    missing = [module.path for module in modules if not module.docstring and reference.members(module)]
    missing += [member.path for module in modules for member in reference.members(module) if not member.docstring]
    assert not missing


def test_arguments_of_longer_signatures_are_described(modules):
    """Those of a short one are often said by their names and the summary."""
    missing = []
    for function in functions(modules):
        names = [parameter.name for parameter in function.parameters if parameter.name not in ("self", "cls")]
        unsaid = [name for name in names if not re.search(rf"\b{name}\b", function.docstring.value)]
        if len(names) > 3:
            missing += [f"{function.path}: {name}" for name in unsaid]
    assert not missing


def test_errors_that_a_function_raises_itself_are_said(modules):
    missing = []
    for function in functions(modules):
        raised = set(re.findall(r"^\s+raise (UserError|ValueError)\b", function.source, re.MULTILINE))
        text = function.docstring.value
        missing += [f"{function.path}: {error}" for error in raised if error not in text and "Raises" not in text]
    assert not missing


def test_mathematics_keeps_its_lines():
    text = reference.render()["bijectors.md"]
    assert "    forward    y = exp(s) x + t             log-det    sum s\n" in text
    assert "class `AffineCoupling(conditioner, mask, name='affine_coupling')`" in text


def test_private_names_and_imported_ones_are_left_out():
    text = "".join(reference.render().values())
    assert not re.search(r"^###+ (?:class )?`(?:\w+\.)?_", text, re.MULTILINE)
    assert len(re.findall(r"class `RowNoise\(", text)) == 1
