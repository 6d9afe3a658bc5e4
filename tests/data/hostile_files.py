"""Array files that nobody should trust: they claim more than they hold, or are packed as no array is."""

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
_PIECE = 1 << 24


class Member:
    """A member of a zip archive: its bytes as they are packed, and what the archive's directory says of them."""

    def __init__(self, name: str, data: bytes, **says: Any) -> None:
        self.name = name
        self.data = data
        self.says = {"compress_type": zipfile.ZIP_STORED, "file_size": len(data), "CRC": zlib.crc32(data)} | says


def npy(array: Any) -> bytes:
    """An array as `.npy`."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array))
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "|u1", fortran_order: bool = False) -> bytes:
    """The header of a `.npy` file alone, whatever it claims."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": fortran_order, "shape": shape})
    return stream.getvalue()


def npz(path: Path, *members: Member) -> Path:
    """Writes an archive whose directory says what the members want it to say."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # Names may come twice.
        for member in members:
            archive.writestr(f"{member.name}.npy", member.data)
            for field, value in member.says.items():
                setattr(archive.filelist[-1], field, value)
    return path


def zeros(start: bytes, count: int) -> bytes:
    """`start` and zeros, `count` bytes in all, deflated to a thousandth in a moment: one packed piece, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [packer.compress(start), packer.flush(zlib.Z_FULL_FLUSH)]
    repeats, rest = divmod(count - len(start), _PIECE)
    parts += [packer.compress(bytes(rest)), packer.flush(zlib.Z_FULL_FLUSH)]
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"".join(parts) + repeats * piece + packer.flush()


def bomb(name: str, shape: tuple[int, ...], descr: str = "|u1") -> Member:
    """A member that holds all the zeros that its header claims."""
    start = header(shape, descr)
    count = len(start) + int(np.prod(shape, dtype=object)) * np.dtype(descr).itemsize
    return Member(name, zeros(start, count), compress_type=zipfile.ZIP_DEFLATED, file_size=count)


def idx(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An IDX file of unsigned bytes."""
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def gzipped_zeros(start: bytes, count: int) -> bytes:
    """A gzip file of `start` and zeros; its checksum is wrong."""
    return b"\x1f\x8b\x08" + bytes(7) + zeros(start, count) + struct.pack("<II", 0, count % 2**32)
