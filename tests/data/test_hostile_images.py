"""Folders of unknown origin: what cannot be used is skipped and named, in bounded memory."""

import errno
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tf_pivae.data import image_files, image_folder
from tf_pivae.errors import UserError

SIDE = 30000


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(width, height, rows, depth=8, color=0, extra=()):
    """A PNG file with the header given and any compressed rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    others = b"".join(chunk(kind, data) for kind, data in extra)
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(screen, frame):
    """A GIF whose frame is larger than its screen."""
    size = struct.pack("<HH", *screen) + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    return b"GIF89a" + size + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def tiff(width, height, tile=None):
    """A little-endian grey TIFF whose one strip (or tile) holds a hundred bytes."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1}
    tags |= {273: 8, 278: height, 279: 100} if tile is None else {322: tile, 323: tile, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\x00" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg(width, height):
    """A JPEG file whose frame header claims another size."""
    data = bytearray(encoded(Image.fromarray(noise(16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def hostile():
    """Name -> bytes; every one claims more than it should, or breaks when it is read."""
    whole = zlib.compressobj(9)  # 900 million pixels of one bit, really there: 112 MB, or 900 MB once decoded
    row = bytes(1 + SIDE // 8)
    real = b"".join([*(whole.compress(row * 100) for _ in range(SIDE // 100)), whole.flush()])
    text = zlib.compress(bytes(300_000_000), 9)
    return {
        "claims.png": png(SIDE, SIDE, zlib.compress(bytes(100))),
        "real.png": png(SIDE, SIDE, real, depth=1),
        "text.png": png(40, 40, b"", extra=[(b"zTXt", b"Comment\0\0" + text)]),
        "profile.png": png(40, 40, b"", extra=[(b"iCCP", b"icc\0\0" + text)]),
        "claims.jpg": jpeg(SIDE, SIDE),
        "claims.bmp": b"BM" + struct.pack("<IHHIIiiHH", 154, 0, 0, 54, 40, SIDE, SIDE, 1, 24) + bytes(124),
        "claims.ppm": f"P6 {SIDE} {SIDE} 255\n".encode() + bytes(100),
        "claims.tiff": tiff(SIDE, SIDE),
        "tile.tiff": tiff(40, 40, tile=1 << 30),
        "claims.gif": gif((SIDE, SIDE), (1, 1)),
        "frame.gif": gif((40, 40), (SIDE, SIDE)),
    }  # fmt: skip


_SCRIPT = """
import json, logging, resource, sys
from tf_pivae.data import image_folder
logging.basicConfig(stream=sys.stderr)
data = image_folder(sys.argv[1], 16, test_fraction=0.25, cache_dir=sys.argv[2])
print(json.dumps([len(data.train) + len(data.test), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def prepared(folder, cache):
    """Prepares a folder in a process of its own: number of images, peak memory in kB, and what it said."""
    command = [sys.executable, "-c", _SCRIPT, str(folder), str(cache)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return *json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_files_that_claim_too_much_take_no_memory(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        (folder / f"good{i}.png").write_bytes(encoded(Image.fromarray(noise(40, 40, seed=i)), "PNG"))
    count, usual, _ = prepared(folder, tmp_path / "a")
    assert count == 4
    bad = hostile()
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    count, peak, message = prepared(folder, tmp_path / "b")
    assert count == 4
    for name in bad:
        assert f"{name} (" in message, name
    for name in ("claims.png", "claims.bmp", "claims.ppm", "claims.tiff", "claims.gif", "claims.jpg", "real.png"):
        assert f"{name} (claims" in message, name
    assert peak - usual < 100_000, "kB"


def test_unusual_kinds_are_used_whatever_the_suffix(tmp_path, caplog):
    """CMYK, 16 bits, animations, wrong suffixes: no reason to skip them; the pixels are the image's own."""
    folder = tmp_path / "images"
    folder.mkdir()
    gray = np.full((20, 20), 200, np.uint8)
    files = {
        "cmyk.png": encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "TIFF"),
        "sixteen.jpg": encoded(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"),
        "animated.bmp": encoded(
            Image.new("RGB", (20, 20), (0, 0, 255)), "GIF", save_all=True, append_images=[Image.new("RGB", (20, 20))]
        ),
        "animated.webp": encoded(
            Image.new("RGB", (20, 20), (0, 255, 0)),
            "PNG",
            save_all=True,
            append_images=[Image.new("RGB", (20, 20), (9, 9, 9))],
        ),
        "no_suffix": encoded(Image.fromarray(gray), "BMP"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    data = image_folder(folder, 8, channels=3, test_fraction=0.2, cache_dir=tmp_path / "cache")
    results = {tuple(image[4, 4]) for split in (data.train, data.test) for image in split.images}
    assert results == {(255, 0, 0), (200, 200, 200), (0, 0, 255), (0, 255, 0)}
    assert len(data.train) + len(data.test) == len(files)
    assert "skipped" not in caplog.text


def test_links_out_of_the_folder_are_not_followed(tmp_path, caplog):
    outside = tmp_path / "outside"
    folder = tmp_path / "images"
    for i in range(3):
        path = (folder if i else outside) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(np.full((20, 20), i, np.uint8)), "PNG"))
    os.symlink(outside / "0.png", folder / "file.png")
    os.symlink(outside, folder / "folder")
    os.symlink(folder, folder / "loop")
    data = image_folder(folder, 8, test_fraction=0.5, cache_dir=tmp_path / "cache")
    assert {int(image.max()) for split in (data.train, data.test) for image in split.images} == {1, 2}
    for name in ("file.png (a link)", "folder (a link)", "loop (a link)"):
        assert name in caplog.text


def test_a_listing_that_changes_or_is_refused_is_named(tmp_path, caplog, monkeypatch):
    """A file that vanishes, a folder that may not be read; the tests may run as root, whom nothing is forbidden."""
    folder = tmp_path / "images"
    for name in ("a.png", "gone.png", "b/c.png", "secret\n/d.png", "\x1b[31mred.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(Image.fromarray(noise(20, 20)), "PNG"))
    listdir = os.listdir

    def refusing(path):
        if str(path).endswith("secret\n"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        names = listdir(path)
        if path == str(folder):
            (folder / "gone.png").unlink()
        return names

    monkeypatch.setattr(os, "listdir", refusing)
    files, skipped = image_files.find_files(folder)
    assert [file.relative for file in files] == ["\x1b[31mred.png", "a.png", "b/c.png"]
    reasons = ["gone.png (No such file or directory)", r"secret\n (cannot be listed: Permission denied)"]
    assert sorted(skipped) == reasons
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path) if "secret" not in str(path) else refusing(path))
    (folder / "\x1b[31mred.png").write_bytes(b"")
    data = image_folder(folder, 8, test_fraction=0.5, cache_dir=tmp_path / "cache")
    assert len(data.train) + len(data.test) == 2
    assert reasons[1] in caplog.text
    assert r"\x1b[31mred.png (empty)" in caplog.text


def test_a_file_that_vanishes_before_it_is_read(tmp_path):
    with pytest.raises(image_files.UnusableImage, match="cannot be read: No such file"):
        image_files.read_header(tmp_path / "gone.png")


def test_a_thousand_folders_in_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        for _ in range(1000):
            os.mkdir("d")
            os.chdir("d")
        Image.new("L", (20, 20)).save("deep.png")
        os.chdir(tmp_path)
        files, skipped = image_files.find_files(tmp_path)
    finally:  # Python's own way to remove folders would find no end.
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)
    assert [file.relative.count("/") for file in files] == [1000]
    assert not skipped


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, 10**9])
def test_no_number_of_tiles(wrong, tmp_path):
    with pytest.raises(UserError, match=r"max_tiles_per_image must be a whole number from 1 to 4,194,304, got"):
        image_folder(tmp_path, 8, crop="random_tiles", max_tiles_per_image=wrong)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_files_cut_anywhere_never_break_the_preparation(form, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(encoded(Image.fromarray(noise(20, 20, seed=1)), "PNG"))
    (folder / "good2.png").write_bytes(encoded(Image.fromarray(noise(20, 20, seed=2)), "PNG"))
    data = encoded(Image.fromarray(noise(20, 20)), form)
    rng = np.random.default_rng(0)
    for i, at in enumerate(np.linspace(0, len(data) - 1, 25).astype(int)):
        (folder / f"cut{i}").write_bytes(data[:at])
        spoilt = bytearray(data)
        spoilt[at] ^= int(rng.integers(1, 256))
        (folder / f"spoilt{i}").write_bytes(spoilt)
    result = image_folder(folder, 8, channels=3, test_fraction=0.3, cache_dir=tmp_path / "cache")
    assert 2 <= len(result.train) + len(result.test) <= 52
    assert result.image_shape == (8, 8, 3)
