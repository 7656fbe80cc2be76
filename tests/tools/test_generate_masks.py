"""The command line of mask generation; what it does is tested in tests/mask_generation."""

import generate_masks
import pytest
from cli import run
from PIL import Image

from pixelclip.data.sa1b import load_sa1b
from pixelclip.mask_generation import generate
from pixelclip.modeling.inference_masks import build_mask_generator
from tests.mask_generation.drawings import draw_regions


def test_it_ends_with_the_numbers_and_the_next_step(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(draw_regions(60, 80)[0]).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("not an image")
    folders = [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert generate_masks.main([*folders, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2 images (0 were finished before), 1 of them could not be read" in printed
    assert f"skipped: {tmp_path / 'in' / 'b.png'} is not an image" in printed
    root = printed.split("SAM_DATASETS=")[1].strip()
    assert len(load_sa1b(root)) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere", "--output", "out"], "nowhere is not a folder"),
        ([".", "--output", "out"], "holds no image"),
        ([".", "--output", "out", "--generator", "sma"], "'sma' is unknown"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    arguments, problem, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(generate_masks.main, arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert problem in error
    assert not list(tmp_path.iterdir())


def test_when_nothing_could_be_read_the_exit_code_says_so(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    folders = [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert run(generate_masks.main, [*folders, "--workers", "1"]) == 1
    assert "no mask was found" in capsys.readouterr().err


def test_a_shard_without_masks_is_not_an_error_and_the_status_counts_it(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    arguments = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--workers", "1"]
    assert run(generate_masks.main, [*arguments, "--status"]) == 1
    assert "0 of 1 done, 1 left" in capsys.readouterr().out
    for shard in ("1/2", "2/2"):
        assert run(generate_masks.main, [*arguments, "--shard", shard]) == 0
        assert f"shard {shard}:\n" in capsys.readouterr().out
    assert run(generate_masks.main, [*arguments, "--status", "--shard", "1/2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["problem", "shard 1/2", "shard 2/2"]
    assert lines[3] == "1 of 1 done (1 with problems), 0 left"
    assert run(generate_masks.main, [*arguments, "--shard", "3/2"]) == 1
    assert "error: The shard is '3/2'" in capsys.readouterr().err


def test_an_interrupt_says_how_to_continue(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "generate_masks", interrupt)
    assert run(generate_masks.main, [".", "--output", "out"]) == 130
    assert "the same command starts it again" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_library():
    options = generate_masks._parse(["in", "--output", "out"])
    generator = build_mask_generator(options.generator)
    expected = (options.generator, options.model, options.weights, options.clusters)
    assert tuple(generator.settings.values()) == expected
