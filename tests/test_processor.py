"""What /proc/cpuinfo says of bfloat16."""

import pytest

from tf_pivae.system import processor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: avx512_bf16\nflags\t\t: fpu avx512f\n", False),
        ("processor\t: 0\nflags\t\t: fpu avx512_bf16 avx\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd\n", False),
    ],
)
def test_flags(tmp_path, monkeypatch, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor.has_bfloat16() is expected


def test_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    assert processor.has_bfloat16() is False
