"""Checkpoints are whole or not there, and say so."""

import builtins
import errno
import logging
import os
import pathlib
import shutil

import keras
import pytest
import tensorflow as tf

from tf_pivae.errors import UserError
from tf_pivae.runs.checkpoints import Checkpoints


@pytest.fixture
def variable():
    return keras.Variable([1.0, 2.0])


def test_keeps_the_newest(tmp_path, variable):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 5, 100000000):
        variable.assign([step, step])
        checkpoints.save(step, {"model": [variable]})
    assert checkpoints.steps() == [5, 100000000]
    variable.assign([0.0, 0.0])
    assert checkpoints.restore({"model": [variable]}) == 100000000
    assert variable.numpy().tolist() == [1e8, 1e8]
    assert checkpoints.restore({"model": [variable]}, 5) == 5
    assert variable.numpy().tolist() == [5.0, 5.0]


def test_a_step_without_a_checkpoint_is_told_from_a_damaged_one(tmp_path, variable, caplog):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint of step 7 in .*: there is none\.$"):
        checkpoints.restore({"a": [variable]}, 7)
    for step in (4, 8):
        checkpoints.save(step, {"a": [variable]})
    with pytest.raises(UserError, match=r"no checkpoint of step 7 in .*: there are 4, 8\.$"):
        checkpoints.restore({"a": [variable]}, 7)
    assert not caplog.records
    assert checkpoints.restore({"a": [variable]}, 4) == 4


def test_nothing_to_restore(tmp_path, variable):
    assert Checkpoints(tmp_path / "none").restore({"model": [variable]}) is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_every_damage_is_noticed(tmp_path, variable, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": [variable]})
    variable.assign([3.0, 4.0])
    checkpoints.save(2, {"model": [variable]})
    (data,) = (tmp_path / "00000002").glob("*.data-*")
    content = data.read_bytes()
    if damage == "truncate":
        data.write_bytes(content[:-1])
    elif damage == "flip":
        data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "remove":
        data.unlink()
    else:
        (tmp_path / "00000002" / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore({"model": [variable]}) == 1
    assert "checkpoint 2 is damaged" in caplog.text
    assert variable.numpy().tolist() == [1.0, 2.0]


def test_what_is_not_finite_is_neither_saved_nor_restored(tmp_path, variable, caplog, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    other = keras.Variable([3, 4], dtype="int64", name="counter")
    groups = {"model": [other, variable]}
    checkpoints.save(1, groups)
    variable.assign([float("inf"), 2.0])
    with pytest.raises(UserError, match=r"2 is not saved: model/\S+ holds infinity \(1 of 2 values are not finite\)"):
        checkpoints.save(2, groups)
    assert checkpoints.steps() == [1]
    # Written all the same, by another program say.
    with monkeypatch.context() as patch:
        patch.setattr("tf_pivae.runs.checkpoints.describe_non_finite", lambda _: None)
        checkpoints.save(2, groups)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(groups) == 1
    assert "checkpoint 2 is damaged (model/" in caplog.text
    assert "holds infinity (1 of" in caplog.text
    assert variable.numpy().tolist() == [1.0, 2.0]
    with pytest.raises(UserError, match=r"no whole checkpoint of step 2 in .* \(model/.*\): choose another step\.$"):
        checkpoints.restore(groups, 2)


def test_a_large_checkpoint_is_read_in_parts(tmp_path, variable, monkeypatch):
    """Of at most so many bytes: what TensorFlow reads at once it holds a second time."""
    others = [keras.Variable([float(i)] * 3, name=f"other_{i}") for i in range(4)]
    groups = {"model": [variable, *others[:2]], "optimizer": others[2:]}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, groups)
    saved = [v.numpy() for group in groups.values() for v in group]
    for other in (variable, *others):
        other.assign(other - 7.0)
    parts = []

    def counted(self, path, read=tf.train.Checkpoint.read):
        parts.append(path)
        return read(self, path)

    monkeypatch.setattr(tf.train.Checkpoint, "read", counted)
    monkeypatch.setattr("tf_pivae.runs.checkpoints._PART_BYTES", 24)
    assert checkpoints.restore(groups) == 1
    assert len(parts) == 3
    for before, after in zip(saved, [v.numpy() for group in groups.values() for v in group], strict=True):
        assert before.tolist() == after.tolist()


def test_a_checkpoint_may_go_while_another_process_reads_it(tmp_path, variable, caplog, monkeypatch):
    """The training beside an evaluation removes its oldest one: whole, and the reader says so or takes another."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(step, {"model": [variable]})
    removed = []

    def gone_meanwhile(self, path, read=tf.train.Checkpoint.read):
        if not removed:
            checkpoints._remove(pathlib.Path(path).parent)
            removed.append(path)
        return read(self, path)

    monkeypatch.setattr(tf.train.Checkpoint, "read", gone_meanwhile)
    with pytest.raises(UserError, match=r"no whole checkpoint of step 1 in .* \(removed while it was read\): choose"):
        checkpoints.restore({"model": [variable]}, 1)
    assert os.listdir(tmp_path) == ["00000002"]
    checkpoints.save(3, {"model": [variable]})
    removed.clear()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore({"model": [variable]}) == 2
    assert "checkpoint 3 is damaged (removed while it was read): falling back" in caplog.text


def test_the_only_checkpoint_may_give_way_to_the_next_while_it_is_read(tmp_path, variable, monkeypatch):
    """With keep = 1, as the best one is kept: the reader takes the one in its place."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"model": [variable]})

    def replaced_meanwhile(self, path, read=tf.train.Checkpoint.read):
        if checkpoints.steps() == [1]:
            variable.assign([3.0, 4.0])
            checkpoints.save(2, {"model": [variable]})
        return read(self, path)

    monkeypatch.setattr(tf.train.Checkpoint, "read", replaced_meanwhile)
    assert checkpoints.restore({"model": [variable]}) == 2
    assert variable.numpy().tolist() == [3.0, 4.0]
    with pytest.raises(UserError, match=r"cannot read .*00000001.*: No such file or directory; run the same command"):
        checkpoints.manifest(1)


def test_files_that_go_while_their_sizes_are_read_are_left_out(tmp_path, variable, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"model": [variable]})
    largest = max(path.stat().st_size for path in (tmp_path / "00000001").iterdir())
    assert checkpoints.most_bytes() == largest

    def gone_meanwhile(path, lstat=os.lstat):
        pathlib.Path(path).unlink()
        return lstat(path)

    monkeypatch.setattr(os, "lstat", gone_meanwhile)
    assert checkpoints.most_bytes() == 0


def test_no_checkpoint_is_ever_seen_half_removed(tmp_path, variable, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"model": [variable]})
    seen = []

    def watched(path, *arguments, remove=shutil.rmtree, **options):
        seen.extend(checkpoints.steps())
        remove(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    checkpoints.save(2, {"model": [variable]})
    assert seen[-1:] == [2]
    assert os.listdir(tmp_path) == ["00000002"]


def test_checkpoints_that_were_passed_over_make_no_others_go(tmp_path, variable):
    """Damaged ones of later steps count no more once the training has gone on from before them."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (4, 8, 12):
        Checkpoints(tmp_path, keep=9).save(step, {"model": [variable]})
    for step in (8, 12):
        (tmp_path / f"{step:08d}" / "manifest.json").write_text("{")
    assert checkpoints.restore({"model": [variable]}) == 4
    checkpoints.save(6, {"model": [variable]})
    assert checkpoints.steps() == [6]
    assert checkpoints.restore({"model": [variable]}) == 6


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, variable, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": [variable]})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*Earlier checkpoints are intact"):
        checkpoints.save(2, {"model": [variable]})
    monkeypatch.undo()
    assert checkpoints.steps() == [1]
    assert checkpoints.restore({"model": [variable]}) == 1


def test_a_half_written_checkpoint_does_not_count(tmp_path, variable, monkeypatch):
    """Whatever the moment at which writing stops, no folder with a final name appears."""
    checkpoints = Checkpoints(tmp_path)

    def killed(*_):
        raise builtins.KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(1, {"model": [variable]})
    monkeypatch.undo()
    assert checkpoints.steps() == []
    checkpoints.save(1, {"model": [variable]})
    assert checkpoints.restore({"model": [variable]}) == 1
