"""The list of deliberate mistakes is that of this tree. Whether tests notice them, mutations.py tries."""

import mutations
import pytest


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.mistake)
def test_a_mutation_can_be_made(mutation):
    assert (mutations.ROOT / mutation.file).read_text().count(mutation.right) == 1
    assert mutation.wrong != mutation.right
    assert (mutations.ROOT / mutation.tests).is_file()


def test_mistakes_have_names_of_their_own():
    names = [mutation.mistake for mutation in mutations.MUTATIONS]
    assert len(set(names)) == len(names)
