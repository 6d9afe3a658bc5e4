"""Array files that claim what they cannot hold, or are packed to fill the memory: one line each, soon."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import IMAGES, Member, bomb, gzipped_zeros, header, idx, npy, npz, zeros

DEFLATED = 8
GOOD = Member("images", npy(IMAGES))


def labels(values: Any) -> tuple[Member, Member]:
    return GOOD, Member("labels", npy(values))


# Name -> the members, and what must be said of the file.
ARCHIVES: dict[str, tuple[tuple[Member, ...], str]] = {
    "claims": ((Member("images", header((10**9, 1000, 1000, 3))),), "in 128 bytes of file"),
    "claims_packed": (
        (Member("images", zeros(header((10**9, 4, 4, 3)), 10**5), compress_type=DEFLATED, file_size=48 * 10**9 + 128),),
        "claims uint8",
    ),
    "shape_overflows": ((Member("images", header((2**62, 2, 2, 1))),), "claims uint8"),
    "shape_of_nothing": ((Member("images", header((2**62, 0, 0, 1))),), "images of 0x0x1"),
    "negative_shape": ((Member("images", header((-4, 8, 8, 3))),), "claims a shape"),
    "shape_of_many_digits": ((Member("images", header((10**3000, 10**3000))),), "claims a shape"),
    "shape_of_many_sizes": ((Member("images", header((1,) * 1000)),), "claims a shape"),
    "too_many": ((bomb("images", (2**26, 1, 1, 1)),), "claims 67108864 images"),
    "one_of_a_gigapixel": ((bomb("images", (1, 30000, 30000)),), "at most 64 megapixels"),
    "zeros": ((bomb("images", (2000, 1000, 1000, 3)),), "6,000 MB, in"),
    "labels_of_zeros": ((GOOD, bomb("labels", (2**30,), "<i8")), "meant to fill the memory"),
    "labels_too_many": ((GOOD, bomb("labels", (2**26,), "<i8")), "must be integers [40]"),
    "names": ((GOOD, bomb("class_names", (2**30,), "<U1")), "meant to fill the memory"),
    "many_names": ((GOOD, bomb("class_names", (2**20,), "<U1")), "1,048,576 names"),
    "long_names": ((GOOD, bomb("class_names", (2,), f"<U{2**24}")), "2 names"),
    "levels": ((GOOD, Member("num_bins", npy(10**9))), "from 2 to 256"),
    "levels_many": ((GOOD, bomb("num_bins", (2**24,), "<i8")), "from 2 to 256"),
    "header": (
        (Member("images", zeros(b"\x93NUMPY\2\0\xff\xff\xff\xff", 10**9), compress_type=DEFLATED, file_size=10**9),),
        "expected 4294967295 bytes",
    ),
    "nested_header": ((Member("images", b"\x93NUMPY\1\0\x10\x27" + b"(" * 10000),), "cannot read images"),
    "minus_header": ((Member("images", b"\x93NUMPY\1\0\x10\x27" + b"-" * 9999 + b"1"),), "cannot read images"),
    "no_header": ((Member("images", b""),), "cannot read images"),
    "encrypted": ((Member("images", npy(IMAGES), flag_bits=1),), "is encrypted"),
    "method": ((Member("images", npy(IMAGES), compress_type=99),), "not compressed by np.savez_compressed"),
    "bzip2": ((Member("images", npy(IMAGES), compress_type=12),), "not compressed by np.savez_compressed"),
    "cut": ((Member("images", npy(IMAGES), file_size=10**6, compress_size=10**6),), "ends early"),
    "twice": ((GOOD, GOOD), "images.npy more than once"),
    "negative_labels": (labels(np.full(40, -7)), "runs from -7 to -7"),
    "mixed_labels": (labels(np.arange(40) - 7), "runs from -7 to 32"),
    "large_labels": (labels(np.full(40, 2**62)), f"to {2**62}"),
    "unsigned_labels": (labels(np.full(40, 2**64 - 1, np.uint64)), f"to {2**64 - 1}"),
    "float_labels": (labels(np.zeros(40)), "float64 [40]; it must be integers"),
    "fortran": ((Member("images", npy(np.asfortranarray(IMAGES))),), "np.ascontiguousarray"),
    "fields": ((Member("images", npy(np.zeros(4, [("a", "u1"), ("b", "f4")]))),), "must be uint8"),
    "esc\n\x1b[31m": ((Member("im\x1b[31m\nages", npy(IMAGES)),), r"esc\n\x1b[31m.npz has the arrays im\x1b[31m\nages"),
}


def archives(folder: Path) -> dict[Path, str]:
    files = {npz(folder / f"{name}.npz", *members): message for name, (members, message) in ARCHIVES.items()}
    many = npz(folder / "members.npz", *(Member(f"{i:06}", b"") for i in range(20_000)))
    return files | {many: "too many members"}


def others(folder: Path) -> dict[Path, str]:
    """Files that are read as IDX."""
    packed = folder / "packed.idx"
    fifo = folder / "fifo.idx"
    packed.write_bytes(gzipped_zeros(idx((3000, 1000, 1000)), 3 * 10**9 + 16))
    (folder / "claims.idx").write_bytes(idx((2**32 - 1,) * 3))
    (folder / "claims_packed.idx").write_bytes(gzipped_zeros(idx((2**32 - 1,) * 3), 10**4))
    (folder / "sizes.idx").write_bytes(gzipped_zeros(idx((2**32 - 1,) * 255), 10**4))
    os.mkfifo(fifo)
    return {
        packed: "3,000 MB, in",
        folder / "claims.idx": "but has 0",
        folder / "claims_packed.idx": "claims uint8",
        folder / "sizes.idx": "claims a shape",
        fifo: "not a regular file",
        Path("/dev/zero"): "not a regular file",
        folder: "not a regular file",
    }


_SCRIPT = """
import json, resource, signal, sys, time
from tf_pivae.data import idx_images, npz_images
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20),) * 2)
for path in json.load(sys.stdin):
    signal.alarm(10)
    start = time.monotonic()
    try:
        kind, detail = "read", str((npz_images(path) if path.endswith("npz") else idx_images(path, path)).image_shape)
    except Exception as error:
        kind, detail = type(error).__name__, str(error).split("\\n  In call to")[0]
    print(json.dumps([kind, detail, time.monotonic() - start]), flush=True)
"""


@pytest.mark.parametrize("make", [archives, others])
def test_one_line_soon_in_little_memory(tmp_path: Path, make: Callable[[Path], dict[Path, str]]) -> None:
    """All in one process, which may take 200 MB, and 10 s a file."""
    files = make(tmp_path)
    paths = json.dumps([str(path) for path in files])
    command = [sys.executable, "-c", _SCRIPT]
    result = subprocess.run(command, input=paths, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(files), (list(files)[len(lines)], result.stderr)
    for (path, expected), (kind, message, seconds) in zip(files.items(), lines, strict=True):
        assert kind == "UserError", (path, message)
        assert expected in message, path
        printable_path = str(path).encode("unicode_escape").decode()
        assert printable_path in message, path
        assert message.isprintable(), path
        assert seconds < 5, path
