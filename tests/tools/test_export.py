import cli
import export
import numpy as np
import pytest

from pixelclip import Predictor
from tests.export.conftest import TOY_CONFIG


def run(*arguments):
    return cli.run(export.main, ["--config-file", TOY_CONFIG, *arguments])


def test_text_features_of_words_and_of_files(tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("sky\nsofa/couch\n")
    for options in (["--words", "sky", "sofa/couch"], ["--vocabulary", str(names)]):
        output = tmp_path / "new" / f"{len(options)}.npz"
        assert run("text", *options, "--output", str(output)) == 0
        with np.load(output) as archive:
            assert archive["class_names"].tolist() == ["sky", "sofa, couch"]
            lengths = np.linalg.norm(archive["text_features"], axis=1)
            np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert "text features of 2 classes" in capsys.readouterr().out


@pytest.mark.slow
def test_an_encoder_is_checked_and_said_so(tmp_path, capsys):
    output = tmp_path / "encoder.pt2"
    assert (
        run("encoder", "--output", str(output), "--opts", "MODEL.CLIP.RESOLUTION", "(64,80)") == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["images 1x3x64x80", "images 3x3x64x80"]
    assert lines[-1].startswith(f"Wrote {output}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "--output", "a.onnx", "--words", "sky"], "An encoder has no classes"),
        (["text", "--output", "a.npz"], "The list of class names is empty"),
        (["text", "--output", "a.onnx", "--words", "sky"], "must end in .npz"),
        (["encoder", "--output", "a.bin"], "must end in .onnx or .pt2"),
        (["encoder", "--output", "a.onnx", "--weights", "none.pth"], "none.pth"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_that_cannot_be_downloaded_are_said(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("The weights 'openai' could not be downloaded.")

    monkeypatch.setattr(Predictor, "from_config", refuse)
    assert run("text", "--output", str(tmp_path / "a.npz"), "--words", "sky") == 1
    assert capsys.readouterr().err == "error: The weights 'openai' could not be downloaded.\n"
