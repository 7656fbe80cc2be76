"""The web pages of the docstrings."""

import pytest
import render_docs

import pixelclip.modeling.sinkhorn


@pytest.fixture
def only_one_module(monkeypatch):
    """All modules take some time."""
    names = render_docs.import_all_modules()
    monkeypatch.setattr(render_docs, "import_all_modules", lambda: ["pixelclip.modeling.sinkhorn"])
    return names


def test_every_module_has_a_name_and_every_public_name_is_there(only_one_module):
    assert {"pixelclip", "pixelclip.modeling.sinkhorn", "pixelclip.engine"} <= set(only_one_module)
    assert "PixelCLIP" in vars(pixelclip)


def test_a_page_has_its_sections_and_needs_no_network(only_one_module, tmp_path, capsys):
    assert render_docs.main(["--output", str(tmp_path)]) == 0
    assert str(tmp_path / "index.html") in capsys.readouterr().out
    page = (tmp_path / "pixelclip" / "modeling" / "sinkhorn.html").read_text()
    assert "<h6 id=" in page and "<strong>logits:</strong>" in page
    assert "src=" not in page.replace('src="data:', "") and "@import" not in page


def test_a_page_that_cannot_be_written_is_said(only_one_module, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert render_docs.main(["--output", str(tmp_path / "file")]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
def test_all_pages_are_rendered_without_a_warning(tmp_path):
    assert render_docs.main(["--output", str(tmp_path)]) == 0
    names = render_docs.import_all_modules()
    assert all((tmp_path / f"{name.replace('.', '/')}.html").is_file() for name in names)
