import os

import pytest
import torch

from pixelclip import PixelCLIP
from pixelclip.checkpoint.checkpointer import PixelCLIPCheckpointer, rename_published_weights

from ..conftest import make_tiny_config


def published_names(model):
    """The weights of a model under the names of a published checkpoint."""
    published = {}
    for name, value in model.state_dict().items():
        for ours, theirs in [
            ("image_encoder.visual.", "sem_seg_head.predictor.clip_model.visual."),
            ("teacher.image_encoder.", "teacher_encoder."),
            ("text_encoder.", "sem_seg_head.predictor.clip_model."),
            ("class_prompts.tokens", "sem_seg_head.predictor.prompt_tokens"),
            ("mask_decoder.conv1.", "head.conv1.double_conv."),
            ("mask_decoder.conv2.", "head.conv2.double_conv."),
            ("mask_decoder.", "head."),
        ]:
            if name.startswith(ours):
                published[theirs + name[len(ours) :]] = value
                break
        else:
            pytest.fail(f"no published name for {name}")
    published["sem_seg_head.predictor.clip_model.logit_scale"] = torch.zeros(())
    published["teacher_encoder.ln_final.weight"] = torch.zeros(32)
    return published


def test_published_checkpoint_loads_completely(tiny_config_of_each, tmp_path):
    source, target = PixelCLIP(tiny_config_of_each), PixelCLIP(tiny_config_of_each)
    path = tmp_path / "published.pth"
    torch.save({"model": published_names(source)}, path)
    PixelCLIPCheckpointer(target).load(str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_saved_checkpoint_loads_and_is_tagged(tiny_model, tiny_config, tmp_path):
    checkpointer = PixelCLIPCheckpointer(tiny_model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    other = PixelCLIP(tiny_config)
    extra = PixelCLIPCheckpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert extra["iteration"] == 1
    assert torch.equal(other.class_prompts.tokens, tiny_model.class_prompts.tokens)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_interrupted_save_keeps_the_previous_checkpoint(tiny_model, tmp_path, monkeypatch):
    checkpointer = PixelCLIPCheckpointer(tiny_model, str(tmp_path))
    checkpointer.save("model")
    before = (tmp_path / "model.pth").read_bytes()

    def fail_half_way(data, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model")
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model.pth"]


def test_checkpoint_of_another_architecture_names_the_parameters(
    tiny_model, tiny_convnext_json, tmp_path
):
    other = PixelCLIP(make_tiny_config(tiny_convnext_json))
    torch.save({"model": other.state_dict()}, tmp_path / "other.pth")
    before = tiny_model.class_prompts.tokens.clone()
    with pytest.raises(ValueError) as error:
        PixelCLIPCheckpointer(tiny_model).load(str(tmp_path / "other.pth"))
    message = str(error.value)
    assert "missing from the file: image_encoder.visual.class_embedding" in message
    assert "unknown to the model: image_encoder.visual.trunk." in message
    assert "MODEL.CLIP.ARCH" in message
    assert torch.equal(tiny_model.class_prompts.tokens, before)


def test_another_number_of_clusters_names_both_shapes(tiny_model, tiny_config, tmp_path):
    tiny_config.MODEL.PIXELCLIP.NUM_CLUSTERS = 5
    torch.save(PixelCLIP(tiny_config).state_dict(), tmp_path / "five.pth")
    with pytest.raises(ValueError, match=r"class_prompts.tokens \(5, 4, 32\), \(8, 4, 32\)"):
        PixelCLIPCheckpointer(tiny_model).load(str(tmp_path / "five.pth"))


class Payload:
    def __reduce__(self):
        return (os.system, ("exit 1",))


@pytest.mark.parametrize("content", ["empty", "html", "truncated", "code", "list", "no tensors"])
def test_unsafe_or_corrupt_files_are_refused(tiny_model, tmp_path, content):
    path = tmp_path / "bad.pth"
    if content == "empty":
        path.write_bytes(b"")
    elif content == "html":
        path.write_text("<html>404</html>")
    elif content == "truncated":
        torch.save({"model": tiny_model.state_dict()}, path)
        path.write_bytes(path.read_bytes()[:10_000])
    else:
        data = {"code": {"model": Payload()}, "list": [1], "no tensors": {"model": {"a": 1}}}
        torch.save(data[content], path)
    with pytest.raises(ValueError, match="checkpoint"):
        PixelCLIPCheckpointer(tiny_model).load(str(path))


def test_missing_file_is_named(tiny_model):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth.*MODEL\.WEIGHTS"):
        PixelCLIPCheckpointer(tiny_model).load("nowhere.pth")


def test_our_names_pass_unchanged(tiny_model):
    weights = tiny_model.state_dict()
    assert list(rename_published_weights(weights)) == list(weights)
