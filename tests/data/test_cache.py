"""The on-disk form: killed, resumed, shared between processes, damaged, on a full disk."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tf_pivae.data import cache, sources, split_writer
from tf_pivae.errors import UserError

COUNT = {"train": 60, "test": 20}


def source(pause=0.0, log=None):
    """60 + 20 images that tell their own number, one a record."""

    def split(name):
        def read(start):
            for i in range(start, COUNT[name]):
                if log is not None:
                    log.append((name, i))
                time.sleep(pause)
                yield sources.Chunk(1, np.full((1, 4, 4, 1), i, np.uint8), np.array([i % 7]))

        return sources.SplitSource(read, COUNT[name], COUNT[name])

    return sources.ImageSource((4, 4, 1), split("train"), split("test"), num_classes=7)


def contents(dataset):
    return [np.array(a) for s in (dataset.train, dataset.test) for a in (s.images, s.labels)]


def test_prepared_once_mapped_and_reused(tmp_path):
    log = []
    first = cache.prepare("x", {"a": 1}, lambda: source(log=log), cache_dir=tmp_path)
    assert len(log) == 80
    again = cache.prepare("x", {"a": 1}, lambda: pytest.fail("prepared twice"), cache_dir=tmp_path)
    assert isinstance(again.train.images, np.memmap)
    assert not again.train.images.flags.writeable
    np.testing.assert_array_equal(again.train.images[:, 0, 0, 0], np.arange(60))
    np.testing.assert_array_equal(again.test.labels, np.arange(20) % 7)
    for a, b in zip(contents(first), contents(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert cache.location(again).parent == tmp_path
    # Another specification has a folder of its own.
    other = cache.prepare("x", {"a": 2}, source, cache_dir=tmp_path)
    assert cache.location(other) != cache.location(again)
    # The files are ordinary .npy files, aligned for direct use.
    plain = np.load(cache.location(again) / "train_images.npy", allow_pickle=False)
    assert plain.shape == (60, 4, 4, 1)


def test_limits_stop_reading(tmp_path):
    log = []
    dataset = cache.prepare("x", {}, lambda: source(log=log), num_examples=(5, None), cache_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (5, 20)
    assert len(log) == 25


CHILD = """
    import sys
    sys.path[:0] = {paths!r}
    from tf_pivae.data import cache, split_writer
    import test_cache
    split_writer.CHECKPOINT_SECONDS = 0.05
    print("ready", flush=True)
    cache.prepare("x", {{}}, lambda: test_cache.source(pause={pause}), cache_dir={folder!r})
"""


def child(folder, pause):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [root, os.path.dirname(os.path.abspath(__file__))]
    code = textwrap.dedent(CHILD.format(paths=paths, pause=pause, folder=str(folder)))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_a_killed_preparation_never_counts_and_is_continued(tmp_path):
    process = child(tmp_path, pause=0.02)
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*.partial/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list(tmp_path.glob("*/meta.json"))
    log = []
    continued = cache.prepare("x", {}, lambda: source(log=log), cache_dir=tmp_path)
    assert 0 < len(log) < 80, "it should neither start over nor have been finished"
    assert not list(tmp_path.glob("*.partial"))
    whole = cache.prepare("x", {}, source, cache_dir=tmp_path / "other")
    for name in ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "meta.json"):
        assert (cache.location(continued) / name).read_bytes() == (cache.location(whole) / name).read_bytes()


def test_two_processes_at_once_prepare_it_once(tmp_path):
    process = child(tmp_path, pause=0.02)
    assert process.stdout.readline() == "ready\n"
    while not list(tmp_path.glob("*.partial")):
        time.sleep(0.01)
    dataset = cache.prepare("x", {}, lambda: pytest.fail("prepared twice"), cache_dir=tmp_path)
    assert process.wait() == 0
    process.stdout.close()
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], np.arange(60))


def test_a_damaged_folder_is_prepared_again(tmp_path, caplog):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path))
    with open(folder / "train_images.npy", "r+b") as file:
        file.truncate(300)
    dataset = cache.prepare("x", {}, source, cache_dir=tmp_path)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], np.arange(60))


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": "ten"},
        {"class_names": [1]},
        {"train": []},
        {"num_classes": 5},
        {"test": None},
        {"class_names": ["a"]},
    ],
)
def test_a_damaged_description_is_prepared_again(tmp_path, caplog, change):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path))
    meta = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(json.dumps(json.loads(meta) | change))
    cache.prepare("x", {}, source, cache_dir=tmp_path)
    assert "damaged" in caplog.text
    assert (folder / "meta.json").read_text() == meta


@pytest.mark.parametrize(
    "text", ["[]", '{"train": 3}', '{"train": {"records": -1}}', "{", '{"train": {"images": "x"}}']
)
def test_a_damaged_note_of_the_progress_begins_anew(tmp_path, text):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path))
    partial = folder.with_name(f"{folder.name}.partial")
    folder.rename(partial)
    (partial / "progress.json").write_text(text)
    dataset = cache.prepare("x", {}, source, cache_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], np.arange(60))


@pytest.mark.parametrize("labels", [0, None, [], {}])
def test_labels_do_not_vanish_with_a_damaged_description(tmp_path, labels):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path))
    meta = json.loads((folder / "meta.json").read_text())
    meta["train"]["labels"] = labels
    (folder / "meta.json").write_text(json.dumps(meta))
    assert cache.prepare("x", {}, source, cache_dir=tmp_path).train.labels is not None


def test_classes_may_be_counted_in_the_labels(tmp_path):
    def uncounted():
        return dataclasses.replace(source(), num_classes=None)

    for _ in range(2):
        dataset = cache.prepare("x", {}, uncounted, cache_dir=tmp_path)
        assert dataset.num_classes == 7


def test_images_without_labels_are_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(split_writer, "CHECKPOINT_SECONDS", 0.0)
    begun = []

    def unlabelled(fail_at=None):
        def read(start):
            begun.append(start)
            for i in range(start, 60):
                if i == fail_at:
                    raise KeyboardInterrupt
                yield sources.Chunk(1, np.full((1, 4, 4, 1), i, np.uint8))

        part = sources.SplitSource(read, 60, 60)
        return sources.ImageSource((4, 4, 1), part, part, 0)

    with pytest.raises(KeyboardInterrupt):
        cache.prepare("x", {}, lambda: unlabelled(30), cache_dir=tmp_path)
    dataset = cache.prepare("x", {}, unlabelled, cache_dir=tmp_path)
    assert begun == [0, 30, 0]
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0, 0], np.arange(60))


def test_a_note_of_more_than_the_files_hold_is_refused(tmp_path):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path))
    partial = folder.with_name(f"{folder.name}.partial")
    folder.rename(partial)
    state = {"records": 50, "images": 5000, "labels": True, "skipped": 0, "names": []}
    (partial / "progress.json").write_text(json.dumps({"train": state}))
    with pytest.raises(UserError, match=r"train_images.npy is damaged: run the same command again"):
        cache.prepare("x", {}, source, cache_dir=tmp_path)
    assert len(cache.prepare("x", {}, source, cache_dir=tmp_path).train) == 60


def test_a_folder_in_the_place_of_the_lock_is_one_line(tmp_path):
    folder = cache.location(cache.prepare("x", {}, source, cache_dir=tmp_path / "first"))
    (tmp_path / f".{folder.name}.lock").mkdir()
    with pytest.raises(UserError, match=r"cannot write to .*\.lock \(Is a directory\)"):
        cache.prepare("x", {}, source, cache_dir=tmp_path)


def test_disk_space_is_checked_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    log = []
    with pytest.raises(UserError, match="TF_PIVAE_CACHE"):
        cache.prepare("x", {}, lambda: source(log=log), cache_dir=tmp_path)
    assert not log


def test_a_full_or_unwritable_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", full)
        with pytest.raises(UserError, match="is full") as error:
            cache.prepare("x", {}, source, cache_dir=tmp_path)
        assert "\n" not in str(error.value)
    assert len(cache.prepare("x", {}, source, cache_dir=tmp_path).train) == 60
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        cache.prepare("x", {}, source, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x", "/sys/x/y", "{tmp}/" + "x" * 300])
def test_a_place_where_no_folder_can_be_made(place, tmp_path):
    place = place.format(tmp=tmp_path)
    with pytest.raises(UserError, match=r"cannot write to .* \(.*\): set TF_PIVAE_CACHE") as error:
        cache.prepare("x", {}, source, cache_dir=place)
    assert place in str(error.value)


def test_long_and_odd_names_make_a_folder(tmp_path):
    dataset = cache.prepare("\u732b" * 200, {}, source, cache_dir=tmp_path)
    assert cache.location(dataset).parent == tmp_path


def test_a_source_that_turns_out_damaged_leaves_nothing(tmp_path):
    def read(start):
        yield sources.Chunk(1, np.zeros((1, 4, 4, 1), np.uint8))
        raise UserError("the file is damaged")

    damaged = sources.SplitSource(read, 3, 3)
    with pytest.raises(UserError, match="the file is damaged"):
        cache.prepare("x", {}, lambda: sources.ImageSource((4, 4, 1), damaged, damaged), cache_dir=tmp_path)
    assert [path.name[-5:] for path in tmp_path.iterdir()] == [".lock"]


def test_skipped_records_are_named_and_an_empty_split_is_an_error(tmp_path, caplog):
    def read(start):
        for i in range(start, 3):
            yield sources.Chunk(1, np.zeros((0, 4, 4, 1), np.uint8), None, (f"{i}.png (damaged)",))

    empty = sources.SplitSource(read, 3, 3)
    with pytest.raises(UserError, match=r"no usable image in the train split; skipped 3: 0.png \(damaged\)"):
        cache.prepare("x", {}, lambda: sources.ImageSource((4, 4, 1), empty, empty), cache_dir=tmp_path)
    assert "skipped 3 of 3" in caplog.text
    assert not list(tmp_path.glob("*.partial"))


def test_the_default_folder_is_the_environment_s(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_PIVAE_CACHE", str(tmp_path / "cache"))
    dataset = cache.prepare("a/b", {}, source)
    assert cache.location(dataset).parent == tmp_path / "cache"
    assert json.loads((cache.location(dataset) / "meta.json").read_text())["name"] == "a/b"


def test_description(tmp_path):
    dataset = cache.prepare("x", {}, source, cache_dir=tmp_path)
    text = cache.describe(dataset)
    assert "x: 4x4, 1 channel, 0.0 MB" in text
    assert "60 training, 20 test" in text
    assert "7 classes\n" in text
    assert str(tmp_path) in text
    assert "in memory" in cache.describe(sources.collect("x", source()))
