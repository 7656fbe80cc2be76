"""Configs and commands have one name in a checkout and in an installed package."""

import sys
from pathlib import Path

import pytest

from pixelclip.utils.installation import find_config, import_optional

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
def test_our_configs_are_found_from_elsewhere(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config(name)).samefile(CONFIGS / expected)


def test_an_existing_file_comes_first(tmp_path, monkeypatch):
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


def test_the_list_holds_the_configs_that_can_be_used_on_their_own():
    with pytest.raises(FileNotFoundError) as error:
        find_config("configs/none.yaml")
    names = str(error.value).partition("It has ")[2].removesuffix(".").split(", ")
    assert {"configs/pixelclip_convnextb.yaml", "configs/demo/toy.yaml"} <= set(names)
    assert not any("Base-" in name for name in names)
    assert all(Path(find_config(name)).is_file() for name in names)


def test_a_package_that_is_there_is_imported():
    assert import_optional("json.decoder", "export").JSONDecoder


def test_a_missing_package_names_the_extra():
    with pytest.raises(ImportError, match=r'no_such_thing.*pip install "pixelclip\[masks\]"'):
        import_optional("no_such_thing.part", "masks")


def test_what_a_package_lacks_itself_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "needy_package.py").write_text("import its_own_need")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_need'"):
        import_optional("needy_package", "masks")
    assert "needy_package" not in sys.modules
