"""The drawings of people, from a package that is laid out as the real one."""

import json
from pathlib import Path

import forking
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def _picture(name, there=True):
    return {"image": f"{name}.png", "has_img_google": there}


def _entry(name, subcategory, **variations):
    tones = {"skin_variations": variations} if variations else {}
    return {"short_name": name, "subcategory": subcategory, **_picture(name, subcategory != "person"), **tones}


@pytest.fixture
def package(tmp_path):
    people = [
        _entry(f"role{i}", "person-role", light=_picture(f"role{i}-light"), dark=_picture(f"role{i}-dark", i != 3))
        for i in range(21)
    ]
    others = [_entry("tram", "transport-ground"), _entry("no_picture", "person")]
    folder = tmp_path / "package"
    (folder / "img/google/64").mkdir(parents=True)
    (folder / "emoji.json").write_text(json.dumps(people + others))
    for i, entry in enumerate(people):
        for one in (entry, *entry["skin_variations"].values()):
            Image.new("RGBA", (64, 64), (i, 0, 0, 255)).save(folder / "img/google/64" / one["image"])
    return folder


def _run(package, output):
    return forking.run("benchmarks.drawings", f"--package={package}", f"--output={output}", cwd=ROOT)


def test_all_tones_of_a_drawing_are_on_one_side(package, tmp_path):
    result = _run(package, tmp_path / "people")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "train 19 drawings, 56 files; test 2 drawings, 6 files\n"  # One lacks a tone.
    sides = {name: {path.name for path in (tmp_path / "people" / name).iterdir()} for name in ("train", "test")}
    assert not {name.partition("-")[0] for name in sides["train"]} & {name.partition("-")[0] for name in sides["test"]}
    pictures = {path.name: path.read_bytes() for path in (package / "img/google/64").iterdir()}
    del pictures["role3-dark.png"]  # emoji.json does not have it.
    assert {path.name: path.read_bytes() for path in (tmp_path / "people").rglob("*.png")} == pictures
    again = _run(package, tmp_path / "people")
    assert again.returncode == 2
    assert again.stderr == f"error: {tmp_path}/people exists already: remove it, or choose another --output.\n"


def test_held_out_drawings_depend_on_names_alone(package, tmp_path):
    """Not on the order of emoji.json."""
    assert _run(package, tmp_path / "people").returncode == 0
    entries = json.loads((package / "emoji.json").read_text())
    (package / "emoji.json").write_text(json.dumps(entries[::-1]))
    assert _run(package, tmp_path / "again").returncode == 0
    sides = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.png"))
             for name in ("people", "again")]  # fmt: skip
    assert sides[0] == sides[1]


def test_another_folder_is_named(tmp_path):
    result = _run(tmp_path, tmp_path / "people")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path} is not the unpacked npm package emoji-datasource-google (")
    assert result.stderr.endswith("): set --package to its folder.\n")
    assert not (tmp_path / "people").exists()


def test_a_missing_picture_leaves_nothing(package, tmp_path):
    (package / "img/google/64/role5-light.png").unlink()
    result = _run(package, tmp_path / "people")
    assert result.returncode == 2
    assert "role5-light.png" in result.stderr
    assert not (tmp_path / "people").exists()
