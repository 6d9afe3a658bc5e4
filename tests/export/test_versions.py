"""A version folder is whole or absent, whoever looks and whoever else is writing."""

import multiprocessing
import os
import stat
import threading
import time

import pytest

from tf_pivae.errors import UserError
from tf_pivae.export.versions import new_version, versions

PARTS = [f"part{i}" for i in range(20)]


def _publish(export_dir, text, pause=0.0):
    with new_version(export_dir) as publication:
        for part in PARTS:
            (publication.folder / part).write_text(text)
            time.sleep(pause)
    return publication.version


def test_numbers_go_up_from_the_highest(tmp_path):
    assert _publish(tmp_path / "new" / "folder", "a") == 1
    (tmp_path / "7").mkdir()
    (tmp_path / "12").write_text("a file in the way")
    (tmp_path / "100.partial").mkdir()
    assert _publish(tmp_path, "a") == 13
    assert versions(tmp_path) == [7, 12, 13]


def test_names_beyond_int64_are_no_versions(tmp_path):
    for name in (str(2**63), "99999999999999999999", "9" * 200):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == []
    assert _publish(tmp_path, "a") == 1
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(UserError, match="none can be higher"):
        _publish(tmp_path, "a")


def test_an_exception_leaves_nothing(tmp_path):
    def fail():
        with new_version(tmp_path) as publication:
            (publication.folder / "part0").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), new_version(tmp_path / "file"):
        pass


def test_a_server_of_another_user_may_read_it(tmp_path):
    before = os.umask(0o022)
    try:
        version = _publish(tmp_path, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / str(version)).stat().st_mode) == 0o755


def test_a_watcher_never_sees_half_a_version(tmp_path):
    done = threading.Event()
    listings = []

    def watch():
        while not done.is_set():
            for version in versions(tmp_path):
                listings.append((version, len(os.listdir(tmp_path / str(version)))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5):
            _publish(tmp_path, "a", pause=0.002)
            time.sleep(0.01)
    finally:
        done.set()
        watcher.join()
    assert {version for version, _ in listings} == {1, 2, 3, 4, 5}
    assert {parts for _, parts in listings} == {len(PARTS)}


def _publish_many(export_dir, name, barrier):
    barrier.wait()
    for i in range(10):
        _publish(export_dir, f"{name}-{i}")


def test_exports_at_once_get_a_number_each(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_publish_many, args=(tmp_path, name, barrier)) for name in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert versions(tmp_path) == list(range(1, 41))
    texts = [{(tmp_path / str(version) / part).read_text() for part in PARTS} for version in range(1, 41)]
    assert all(len(text) == 1 for text in texts), "two exports wrote in one folder"
    assert set.union(*texts) == {f"{name}-{i}" for name in range(4) for i in range(10)}
