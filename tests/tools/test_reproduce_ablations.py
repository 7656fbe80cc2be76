import pytest
import reproduce_ablations

from pixelclip.toy.ablations import REPORTED_ON, VARIANTS


def run(arguments, monkeypatch, tmp_path):
    """Run the command line; return what the library is called with."""
    calls = []

    def reproduce(*given):
        calls.append(given)
        (tmp_path / "ablations.md").write_text("the table")
        return tmp_path / "ablations.md"

    monkeypatch.setattr("pixelclip.toy.ablations.reproduce_ablations", reproduce)
    reproduce_ablations.main(["--output", str(tmp_path), *arguments])
    return calls[0]


def test_all_variants_are_measured_on_the_test_scenes_by_default(monkeypatch, tmp_path, capsys):
    variants, seeds, output, dataset, options = run([], monkeypatch, tmp_path)
    assert (tuple(variants), seeds, output) == (VARIANTS, [1, 2, 3], tmp_path)
    assert (dataset, options) == (REPORTED_ON, [])
    assert "the table" in capsys.readouterr().out


def test_variants_are_chosen_by_name(monkeypatch, tmp_path, capsys):
    variants, *_ = run(["--variants", "SCLIP", "k = 12"], monkeypatch, tmp_path)
    assert [variant.name for variant in variants] == ["SCLIP", "k = 12"]
    with pytest.raises(SystemExit):
        run(["--variants", "SCLIPP"], monkeypatch, tmp_path)
    assert "unknown variants ['SCLIPP']" in capsys.readouterr().err
