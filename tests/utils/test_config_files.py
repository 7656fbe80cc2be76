"""Configs are found by one name from any folder."""

from pathlib import Path

import pytest

from pixelclip.utils.config_files import find_config, list_configs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("configs/pixelclip_vitb16.yaml", "pixelclip_vitb16.yaml"),
        ("pixelclip_vitb16.yaml", "pixelclip_vitb16.yaml"),
        (Path("demo", "toy.yaml"), "demo/toy.yaml"),
        ("configs/Base-PixelCLIP.yaml", "Base-PixelCLIP.yaml"),
    ],
)
def test_our_own_are_found_from_elsewhere(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config(name)).samefile(CONFIGS / expected)


def test_a_file_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "pixelclip_vitb16.yaml"
    own.write_text("VERSION: 2\n")
    assert find_config("configs/pixelclip_vitb16.yaml") == "configs/pixelclip_vitb16.yaml"
    assert find_config(own) == str(own)


@pytest.mark.parametrize("name", ["configs/none.yaml", "../setup.py", "/none.yaml", "", "demo"])
def test_others_are_refused_with_the_names_of_ours(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"does not exist.*configs/demo/toy\.yaml"):
        find_config(name)


def test_the_list_holds_what_can_be_used_by_itself():
    names = list_configs()
    assert {"configs/pixelclip_convnextb.yaml", "configs/demo/toy.yaml"} <= set(names)
    assert not any("Base-" in name for name in names)
    assert all(Path(find_config(name)).is_file() for name in names)
