import sys

import pytest

from pixelclip.utils.optional_packages import import_optional


def test_a_package_that_is_there_is_imported():
    assert import_optional("json.decoder", "export").JSONDecoder


def test_a_missing_package_names_the_extra():
    with pytest.raises(ImportError, match=r'no_such_thing.*pip install -e "\.\[masks\]"'):
        import_optional("no_such_thing.part", "masks")


def test_what_a_package_lacks_itself_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "needy_package.py").write_text("import its_own_need")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_need'"):
        import_optional("needy_package", "masks")
    assert "needy_package" not in sys.modules
