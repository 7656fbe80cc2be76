import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelclip.modeling.clip_loader import (
    BUILT_IN_ARCHITECTURES,
    BUILT_IN_WEIGHTS,
    load_clip,
    load_clip_config,
    load_tokenizer,
)


def test_no_weights_are_said_in_the_log(tiny_vit_json, caplog):
    with caplog.at_level(logging.WARNING):
        load_clip(tiny_vit_json, "")
    assert "random weights" in caplog.text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_file_is_loaded(tiny_vit_json, tmp_path, suffix):
    source = load_clip(tiny_vit_json, "")
    path = str(tmp_path / f"weights{suffix}")
    state = {name: value.contiguous() for name, value in source.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_clip(tiny_vit_json, path)
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


class _AsPublishedByOpenAI(torch.nn.Module):
    """Its weights in half precision, and settings among the buffers."""

    def __init__(self, clip):
        super().__init__()
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding = clip.positional_embedding
        self.text_projection, self.logit_scale = clip.text_projection, clip.logit_scale
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(7))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_archive_of_openai_is_loaded(tiny_vit_json, tmp_path):
    source = load_clip(tiny_vit_json, "").half()
    path = str(tmp_path / "ViT-B-16.pt")
    module = torch.jit.trace_module(_AsPublishedByOpenAI(source).half(), {}, check_trace=False)
    module.save(path)
    loaded = load_clip(tiny_vit_json, path)
    assert loaded.visual.proj.dtype == torch.float32
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.float()), name


def test_builtin_name_and_json_give_the_same_model(tmp_path):
    config = open_clip.get_model_config("ViT-S-32-alt")
    path = tmp_path / "same.json"
    path.write_text(json.dumps(config))
    shapes = [
        {name: value.shape for name, value in load_clip(source, "").state_dict().items()}
        for source in ("ViT-S-32-alt", str(path))
    ]
    assert shapes[0] == shapes[1]


def test_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match=r"'ViT-B-17'.*ViT-B-16-quickgelu"):
        load_clip("ViT-B-17", "")


def test_weights_of_another_architecture_are_refused(tiny_vit_json, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"visual.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"other\.pt.*could not be loaded"):
        load_clip(tiny_vit_json, str(path))


@pytest.mark.parametrize("content", [b"", b"<html>not weights</html>", b"PK\x03\x04corrupt"])
def test_files_that_are_not_weights_are_refused(tiny_vit_json, tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="could not be loaded"):
        load_clip(tiny_vit_json, str(path))


def test_unknown_tag_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'opennai'.*openai"):
        load_clip("ViT-B-16-quickgelu", "opennai")


def test_activation_mismatch_is_refused():
    with pytest.raises(ValueError, match="quickgelu"):
        load_clip("ViT-B-16", "openai")


def test_failed_download_names_tag_and_remedy(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(RuntimeError, match=r"'openai'.*MODEL\.CLIP\.PRETRAINED"):
        load_clip("ViT-B-16-quickgelu", "openai")


def test_a_checkpoint_that_follows_saves_the_download(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("downloaded")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    assert load_clip("ViT-S-32-alt", "", weights_follow=True).visual.proj.isfinite().all()
    load_clip("RN50-quickgelu", "openai", weights_follow=True)
    load_clip("RN50-quickgelu", "/of/another/machine.pt", weights_follow=True)


def test_tag_downloads_and_loads(monkeypatch, tmp_path):
    """The path behind a tag, with the download replaced by a file of the same layout."""
    source = open_clip.CLIP(**open_clip.get_model_config("ViT-S-32-alt"))
    path = str(tmp_path / "weights.pt")
    torch.save(source.state_dict(), path)
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["made_here"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"url": tag})
    monkeypatch.setattr(open_clip, "download_pretrained", lambda config: path)
    loaded = load_clip("ViT-S-32-alt", "made_here")
    assert torch.equal(loaded.visual.proj, source.visual.proj)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        (json.dumps({"embed_dim": 3}), "lacks"),
        ("[" * 10**6, "not valid JSON"),
        (json.dumps({"model_cfg": 3}), "holds a int"),
        (json.dumps({"embed_dim": 8, "vision_cfg": [], "text_cfg": {}}), "its vision_cfg is not"),
        (json.dumps({"embed_dim": 8, "vision_cfg": {}, "text_cfg": None}), "its text_cfg is not"),
        (json.dumps({"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"x": 1}}), "TypeError"),
        (json.dumps({"embed_dim": "8", "vision_cfg": {}, "text_cfg": {}}), "cannot be built"),
        (None, "does not exist"),
    ],
)
def test_bad_json_config_is_refused(tmp_path, content, problem):
    path = tmp_path / "model.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=problem):
        load_clip(str(path), "")


def test_other_text_encoders_are_refused():
    with pytest.raises(ValueError, match="text encoder of another kind"):
        load_clip("ViT-B-16-SigLIP", "")


def test_the_tiny_clip_of_the_package_is_loaded_by_name():
    clip = load_clip("toy", "captions")
    stored = load_file(BUILT_IN_WEIGHTS["toy"]["captions"])
    assert sum(p.numel() for p in clip.parameters()) > 1e6
    for name, value in clip.state_dict().items():
        assert torch.equal(value, stored[name].float()), name
    assert clip.visual.proj.dtype == torch.float32


def test_its_weights_are_not_a_tag_of_other_architectures():
    with pytest.raises(ValueError, match=r"'captions': no such file"):
        load_clip("ViT-B-16-quickgelu", "captions")
    with pytest.raises(ValueError, match=r"'openai'.*Its tags: captions"):
        load_clip("toy", "openai")


def test_tokenizers_have_the_architectures_context_and_merges(tiny_vit_json):
    ordinary, toy = load_tokenizer(tiny_vit_json), load_tokenizer("toy")
    assert (ordinary.context_length, ordinary.vocab_size) == (77, 49408)
    assert (toy.context_length, toy.vocab_size) == (40, 898)
    assert ordinary.encode("mushroom") != toy.encode("mushroom")
    assert ordinary.decode(ordinary.encode("a mushroom")) == toy.decode(toy.encode("a mushroom"))


def test_merges_lie_next_to_the_json_file(tmp_path):
    config = json.loads(Path(BUILT_IN_ARCHITECTURES["toy"]).read_text())
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"merges .*toy_clip_merges\.txt\.gz.*not a file"):
        load_clip_config(str(path))
    merges = Path(BUILT_IN_ARCHITECTURES["toy"]).with_name("toy_clip_merges.txt.gz")
    (tmp_path / merges.name).write_bytes(merges.read_bytes())
    assert load_tokenizer(str(path)).encode("red boat") == load_tokenizer("toy").encode("red boat")
