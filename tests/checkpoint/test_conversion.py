"""Conversions lose nothing that is needed, and say what they cannot do."""

import os

import cli
import convert_checkpoint as tool
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.conversion import CLIP_LAYOUTS, LAYOUTS, convert_checkpoint

NAMES = ["sky", "sofa, couch", "traffic light"]


@pytest.fixture
def whole(tiny_config_of_each, tmp_path):
    """A checkpoint of a training, and its config."""
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config_of_each)
    model.image_encoder.requires_grad_(False)
    for parameter in model.image_encoder.parameters():
        parameter.mul_(1.1)  # the teacher is another one
    PixelCLIPCheckpointer(model, str(tmp_path)).save("whole", iteration=7, optimizer={"lr": 1.0})
    tiny_config_of_each.INPUT.MIN_SIZE_TEST = 64
    return tmp_path / "whole.pth"


def test_the_config_stays_with_the_weights_but_not_in_published_files(tiny_config, tmp_path):
    checkpointer = PixelCLIPCheckpointer(PixelCLIP(tiny_config), str(tmp_path), config="A: 1")
    checkpointer.save("model")
    for layout in set(LAYOUTS) - set(CLIP_LAYOUTS):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "other.pth", layout)
        content = torch.load(tmp_path / "other.pth", weights_only=True)
        expected = {"model"} if layout == "published" else {"model", "config"}
        assert set(content) == expected, layout


def model_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_to_published_and_back_is_the_same(whole, tmp_path):
    convert_checkpoint(whole, tmp_path / "published.pth", "published")
    published = model_of(tmp_path / "published.pth")
    assert "sem_seg_head.predictor.prompt_tokens" in published
    assert {"head.conv0.weight", "head.conv1.double_conv.0.weight"} <= set(published)
    assert not any(
        n.startswith(("image_enc", "text_enc", "class_pr", "mask_dec")) for n in published
    )
    done = convert_checkpoint(tmp_path / "published.pth", tmp_path / "back.pth", "ours")
    expected, actual = model_of(whole), model_of(tmp_path / "back.pth")
    assert done.tensors == len(expected) == len(actual)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_published_files_have_the_names_of_the_published_ones(shared_folder, tmp_path, kind):
    recorded = shared_folder / "golden" / kind / "reference_checkpoint.pth"
    convert_checkpoint(recorded, tmp_path / "ours.pth", "ours")
    convert_checkpoint(tmp_path / "ours.pth", tmp_path / "published.pth", "published")
    expected, actual = model_of(recorded), model_of(tmp_path / "published.pth")
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        is_used = name.startswith("teacher_encoder.visual.") or "teacher_encoder." not in name
        if is_used and not name.endswith("logit_scale"):
            assert torch.equal(actual[name], value), name


def test_inference_only_predicts_the_same(whole, tiny_config_of_each, tmp_path):
    small, half = tmp_path / "small.pth", tmp_path / "half.pth"
    done = convert_checkpoint(whole, small, "inference")
    convert_checkpoint(whole, half, "inference", half=True)
    assert done.left_out == ("iteration", "optimizer")
    assert not any(n.startswith(("teacher.", "mask_decoder.")) for n in model_of(small))
    sizes = [path.stat().st_size for path in (whole, small, half)]
    assert (done.source_bytes, done.target_bytes) == (sizes[0], sizes[1])
    assert sizes[1] < 0.99 * sizes[0]
    assert sizes[2] < 0.51 * sizes[1]
    image = torch.randint(0, 256, (3, 50, 70), generator=torch.Generator().manual_seed(0))
    expected, same, close = (
        Predictor.from_config(tiny_config_of_each, path)(image, NAMES).similarity
        for path in (whole, small, half)
    )
    assert torch.equal(same, expected)
    assert not torch.equal(close, expected)
    torch.testing.assert_close(close, expected, atol=5e-3, rtol=0)


def test_a_model_for_inference_loads_both_and_still_refuses_others(
    whole, tiny_config_of_each, tmp_path
):
    convert_checkpoint(whole, tmp_path / "small.pth", "inference")
    expected = model_of(tmp_path / "small.pth")
    for path in (whole, tmp_path / "small.pth"):
        model = PixelCLIP(tiny_config_of_each, for_training=False)
        PixelCLIPCheckpointer(model).load(str(path))
        actual = model.state_dict()
        assert set(actual) == set(expected)
        assert all(torch.equal(actual[name], value) for name, value in expected.items())
    other = tmp_path / "other.pth"
    torch.save({"model": {**expected, "mask_decoders": torch.ones(1)}}, other)
    with pytest.raises(ValueError, match="1 parameters unknown to the model: mask_decoders"):
        PixelCLIPCheckpointer(model).load(str(other))


def test_inference_only_is_whole_and_the_same_each_time(whole, tiny_config_of_each, tmp_path):
    convert_checkpoint(whole, tmp_path / "small.pth", "inference")
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = PixelCLIP(tiny_config_of_each).eval()
        PixelCLIPCheckpointer(model).load(str(tmp_path / "small.pth"))
        states.append(model.state_dict())
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert not states[0]["mask_decoder.proj.weight"].any()
    # Detectron2's own checkpointer loads it too.
    model = PixelCLIP(tiny_config_of_each)
    DetectionCheckpointer(model).load(str(tmp_path / "small.pth"))
    expected = model_of(whole)
    assert torch.equal(model.class_prompts.tokens, expected["class_prompts.tokens"])


def test_training_from_inference_only_is_refused(whole, tiny_config_of_each, tmp_path):
    convert_checkpoint(whole, tmp_path / "small.pth", "inference")
    with pytest.raises(ValueError, match="for inference only.*start a training from the whole"):
        PixelCLIPCheckpointer(PixelCLIP(tiny_config_of_each)).load(str(tmp_path / "small.pth"))
    for layout in ("ours", "published"):
        with pytest.raises(ValueError, match=r"small\.pth' is for inference only"):
            convert_checkpoint(tmp_path / "small.pth", tmp_path / "x.pth", layout)
    convert_checkpoint(tmp_path / "small.pth", tmp_path / "half.pth", "inference", half=True)
    assert model_of(tmp_path / "half.pth")["class_prompts.tokens"].dtype == torch.float16


def test_a_file_without_teacher_only_is_not_a_checkpoint(whole, tiny_config_of_each, tmp_path):
    weights = {n: v for n, v in model_of(whole).items() if not n.startswith("teacher.")}
    torch.save({"model": weights}, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match="missing from the file: teacher"):
        PixelCLIPCheckpointer(PixelCLIP(tiny_config_of_each).eval()).load(str(tmp_path / "cut.pth"))
    with pytest.raises(ValueError, match=r"has no teacher\.\* among"):
        convert_checkpoint(tmp_path / "cut.pth", tmp_path / "x.pth", "ours")


def test_the_source_stays_and_nothing_is_half_written(whole, tmp_path, monkeypatch):
    before = whole.read_bytes()
    (tmp_path / "link.pth").symlink_to(whole)
    for target in (whole, tmp_path / "link.pth", tmp_path / "." / "whole.pth"):
        with pytest.raises(ValueError, match="is the source itself"):
            convert_checkpoint(whole, target, "inference")
    with pytest.raises(IsADirectoryError, match="name the file to write"):
        convert_checkpoint(whole, tmp_path, "inference")
    with pytest.raises(ValueError, match="end its name in .pth"):
        convert_checkpoint(whole, tmp_path / "x.safetensors", "inference")
    (tmp_path / "old.pth").write_text("old")

    def fail_half_way(data, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(whole, tmp_path / "old.pth", "inference")
    assert whole.read_bytes() == before
    assert (tmp_path / "old.pth").read_text() == "old"
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


def test_values_beyond_16_bits_are_refused(whole, tmp_path):
    weights = model_of(whole)
    weights["class_prompts.tokens"][0, 0, 0] = 1e5
    torch.save({"model": weights}, tmp_path / "large.pth")
    with pytest.raises(ValueError, match=r"class_prompts.tokens.*1e\+05"):
        convert_checkpoint(tmp_path / "large.pth", tmp_path / "x.pth", "inference", half=True)


def test_free_vectors_have_no_published_place(whole, tmp_path):
    weights = model_of(whole)
    weights["class_prompts.vectors"] = weights.pop("class_prompts.tokens")
    torch.save({"model": weights}, tmp_path / "free.pth")
    with pytest.raises(ValueError, match=r"no place for 'class_prompts\.vectors'"):
        convert_checkpoint(tmp_path / "free.pth", tmp_path / "x.pth", "published")
    convert_checkpoint(tmp_path / "free.pth", tmp_path / "x.pth", "inference")


def test_the_command_says_sizes_and_errors(whole, tmp_path, capsys):
    target = tmp_path / "small.pth"
    assert tool.main([str(whole), str(target), "--to", "inference", "--half"]) == 0
    output = capsys.readouterr().out
    assert f"{whole.stat().st_size / 1e6:.1f} MB" in output
    assert f"{target.stat().st_size / 1e6:.1f} MB" in output
    assert "left out: iteration, optimizer" in output
    (tmp_path / "text.pth").write_text("<html>")
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    for source, problem in [
        ("nowhere.pth", "does not exist"),
        ("text.pth", "not a checkpoint"),
        ("other.pth", "not a checkpoint of PixelCLIP: it has no image_encoder."),
    ]:
        arguments = [str(tmp_path / source), str(tmp_path / "y.pth"), "--to", "ours"]
        assert cli.run(tool.main, arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert problem in captured.err
    arguments = [str(whole), str(tmp_path / "no" / "y.pth"), "--to", "ours"]
    assert cli.run(tool.main, arguments) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert "y.pth" not in os.listdir(tmp_path)


def test_the_command_offers_every_layout(capsys):
    with pytest.raises(SystemExit):
        tool.main(["source.pth", "target.pth", "--to", "another"])
    assert ", ".join(LAYOUTS) in capsys.readouterr().err.replace("'", "")


def test_the_command_refuses_a_config_that_would_have_no_effect(capsys):
    with pytest.raises(SystemExit):
        tool.main(["a.pth", "b.pth", "--to", "inference", "--config-file", "c.yaml"])
    assert "--config-file has no effect with --to inference" in capsys.readouterr().err
