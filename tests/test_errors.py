"""What is said of a disk, and of a value that is missing."""

import errno
import os

import gin
import pytest
import tensorflow as tf

from tf_pivae import cli
from tf_pivae.errors import UserError, cannot_write, check_output, disk_message, missing_setting


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
            "cannot use a/b: Read-only file system; choose a folder that can be written, or change its permissions.",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node Save}} /a/b; No space left on device\n\tmore"),
            "cannot use /a/b: No space left on device; make room, then run the same command again.",
        ),
        (os_error(errno.ENAMETOOLONG, "a/b"), "cannot use a/b: File name too long; choose a shorter name."),
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


@pytest.mark.parametrize("path", ["", "/", ".", "missing/x.png", "file/x.png"])
def test_what_is_no_place_for_a_file_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write '.*': choose a file in a folder"):
        check_output(path)


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere")
    for path in ("/dev/null", tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(UserError, match="it is a link, a device or a pipe; choose a file"):
            check_output(path)


def test_a_new_file_and_an_old_one_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    check_output("file")
    check_output("new")
    check_output(tmp_path / "new")


class _Needs:
    def __init__(self, size):
        self.size = size


def _function(path, image_size):
    return path, image_size


@pytest.mark.parametrize(
    ("needs", "expected"),
    [(_Needs, "_Needs.size"), (_function, "_function.path")],
)
def test_a_missing_value_is_asked_for_by_its_name(needs, expected):
    with pytest.raises(TypeError) as caught:
        gin.external_configurable(needs, module=f"{__name__}.missing")()
    assert missing_setting(caught.value) == f"the configuration has no {expected}: add --gin_param={expected}=..."
    with pytest.raises(TypeError) as caught:
        needs()  # Called by the program itself.
    assert missing_setting(caught.value) is None


def test_a_value_that_a_configuration_must_give_is_asked_for():
    with pytest.raises(RuntimeError) as caught:
        gin.external_configurable(_Needs, name="_Requires", module=f"{__name__}.missing")(size=gin.REQUIRED)
    assert cli.one_line(caught.value) == "the configuration has no _Requires.size: add --gin_param=_Requires.size=..."


def test_other_mistakes_in_a_configured_call_are_not_put_down_to_a_missing_value():
    with pytest.raises(TypeError) as caught:
        gin.external_configurable(len, name="_len", module=f"{__name__}.missing")(1)
    assert missing_setting(caught.value) is None
    line = "_len: object of type 'int' has no len() (TF_PIVAE_DEBUG=1 shows where)."
    assert cli.one_line(caught.value) == line
