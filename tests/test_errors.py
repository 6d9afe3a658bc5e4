"""What is said of a disk."""

import errno
import os

import pytest
import tensorflow as tf

from tf_pivae.errors import cannot_write, disk_message


def os_error(number, *filename):
    return OSError(number, os.strerror(number), *filename)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            os_error(errno.ENOSPC),
            "cannot use the disk: No space left on device; make room, then run the same command again.",
        ),
        (
            os_error(errno.EROFS, "a/b"),
            "cannot use a/b: Read-only file system; choose a folder that can be written, or mend its permissions.",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node Save}} /a/b; No space left on device\n\tmore"),
            "cannot use /a/b: No space left on device; make room, then run the same command again.",
        ),
        (os_error(errno.ENOENT, "a/b"), None),  # A mistake of the program's, for all that is known here.
        (os_error(errno.EACCES), None),  # Of a port, not of a file.
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), None),
        (ValueError("no"), None),
    ],
)
def test_only_what_a_disk_refused_is_put_down_to_it(error, message):
    assert disk_message(error) == message


def test_what_to_do():
    assert cannot_write("x/y", os_error(errno.ENOENT)) == (
        "cannot write x/y: No such file or directory; choose a file in a folder that exists."
    )
    assert cannot_write("x", os_error(errno.EDQUOT)).endswith("; make room, then run the same command again.")
    assert cannot_write("x", os_error(errno.EBUSY)) == "cannot write x: Device or resource busy."
