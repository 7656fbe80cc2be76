"""CLIP in the folders of transformers and open_clip: the same embeddings and dense features."""

import json
import re
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer, clip_folders
from pixelclip.checkpoint.clip_folders import take_clip_weights
from pixelclip.checkpoint.conversion import CLIP_LAYOUTS, convert_checkpoint
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.data.vocabularies import read_vocabulary
from pixelclip.modeling.clip_loader import load_clip, load_tokenizer
from pixelclip.modeling.image_encoder import DenseImageEncoder

from ..conftest import TINY_VIT, make_tiny_config
from ..documents.code_blocks import read_code_blocks

transformers = pytest.importorskip("transformers")

PAGE = "docs/share.md"
ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a photo of a traffic light.", "it's  the 12th Sofa, COUCH", "sky"]
# Weights of this size give embeddings of about 1.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def save_checkpoint(cfg, path):
    """A checkpoint whose positional embedding, say, is not that of any CLIP."""
    torch.manual_seed(0)
    model = PixelCLIP(cfg).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    PixelCLIPCheckpointer(model, str(path.parent), config=dump_config(cfg)).save(path.stem)
    return model


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tmp_path_factory.mktemp("training") / "model.pth"


@pytest.fixture(scope="module")
def model(tiny_vit_json, source):
    return save_checkpoint(make_tiny_config(tiny_vit_json), source)


@pytest.fixture(scope="module")
def folder(model, source):
    convert_checkpoint(source, source.with_name("clip"), "transformers")
    return source.with_name("clip")


def images(side=64):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def clip_of(model, architecture):
    clip = load_clip(architecture, "", weights_follow=True).eval()
    clip.load_state_dict(take_clip_weights(model.state_dict()))
    return clip


@torch.no_grad()
def embed_with_transformers(folder, pixels):
    """Embeddings of images and TEXTS by what anybody would call."""
    clip = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    output = clip(**processor(text=TEXTS, padding=True, return_tensors="pt"), pixel_values=pixels)
    assert clip.logit_scale.exp().item() == pytest.approx(100)
    return output.image_embeds, output.text_embeds


@torch.no_grad()
def test_transformers_gives_the_same_embeddings(model, folder, tiny_vit_json):
    clip, pixels = clip_of(model, tiny_vit_json), images()
    image_embeds, text_embeds = embed_with_transformers(folder, pixels)
    torch.testing.assert_close(image_embeds, clip.encode_image(pixels, normalize=True), **CLOSE)
    expected = torch.nn.functional.normalize(model.text_encoder(model.text_encoder.tokenize(TEXTS)))
    torch.testing.assert_close(text_embeds, expected, **CLOSE)


def documented_code():
    """The block of the page that segments with plain transformers."""
    (code,) = [
        block.code
        for block in read_code_blocks(ROOT / PAGE, PAGE)
        if "CLIPModel.from_pretrained" in block.code
    ]
    assert len(code.strip().splitlines()) <= 25
    assert not re.search("pixelclip|open_clip", code)
    return code


def test_the_documented_code_gives_the_same_dense_features_and_labels(
    model, folder, source, tmp_path, monkeypatch
):
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(3, 12, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(noise[None], (96, 130), mode="bicubic")[0]
    pixels = (smooth.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    (tmp_path / "clip").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(documented_code(), found)
    overrides = [
        *("MODEL.CLIP.RESOLUTION", "(320, 320)", "MODEL.PIXELCLIP.TEST_TEMPLATES", "single"),
        *("MODEL.PIXELCLIP.TEST_FEATURE_SIZE", "(64, 64)", "INPUT.MIN_SIZE_TEST", "640"),
        *("INPUT.MAX_SIZE_TEST", "2560", "MODEL.DEVICE", "cpu"),
    ]
    predictor = Predictor.from_pretrained(source, overrides)
    result = predictor("photo.jpg", found["names"])
    with torch.no_grad():
        dense = model.image_encoder(found["pixels"])  # (1, 20, 20, d)
        ours = found["model"].visual_projection(found["x"])
    torch.testing.assert_close(ours, dense.flatten(1, 2), **CLOSE)
    torch.testing.assert_close(found["maps"][0], result.similarity, **CLOSE)
    assert (found["labels"] == result.labels).float().mean() > 0.999
    assert len(found["labels"].unique()) > 1


def test_every_packaged_name_has_the_same_tokens(folder, model):
    tokenizer = transformers.CLIPProcessor.from_pretrained(folder).tokenizer
    names = [*read_vocabulary("ade20k_150"), *read_vocabulary("coco_stuff_171"), *TEXTS]
    ours = model.text_encoder.tokenize(names)
    theirs = tokenizer(names, padding="max_length", return_tensors="pt")
    ids = torch.where(theirs["attention_mask"].bool(), theirs["input_ids"], 0)
    assert ids.shape == ours.shape  # to the context's length
    assert torch.equal(ids, ours)


@torch.no_grad()
def test_the_toys_vocabulary_goes_along(tmp_path):
    weights = take_clip_weights(
        {
            ("image_encoder." if name.startswith("visual.") else "text_encoder.") + name: tensor
            for name, tensor in load_clip("toy", "captions").state_dict().items()
        }
    )
    clip_folders.write_transformers_folder(str(tmp_path), "toy", weights)
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path)
    texts = ["a drawing of a mushroom", "water, sand and bricks"]
    tokens = processor(text=texts, padding="max_length", return_tensors="pt")
    ids = torch.where(tokens["attention_mask"].bool(), tokens["input_ids"], 0)
    assert torch.equal(ids, load_tokenizer("toy")(texts))
    with pytest.raises(ValueError, match="merges of its own"):
        clip_folders.write_open_clip_folder(str(tmp_path), "toy", weights)


@torch.no_grad()
def test_open_clip_gives_the_same(tiny_config_of_each, tmp_path):
    model = save_checkpoint(tiny_config_of_each, tmp_path / "model.pth")
    convert_checkpoint(tmp_path / "model.pth", tmp_path / "folder", "open_clip")
    name = f"local-dir:{tmp_path / 'folder'}"
    clip, preprocess = open_clip.create_model_from_pretrained(name)
    clip, pixels = clip.eval(), images()
    expected = clip_of(model, tiny_config_of_each.MODEL.CLIP.ARCH)
    assert torch.equal(clip.encode_image(pixels), expected.encode_image(pixels))
    texts = open_clip.get_tokenizer(name)(TEXTS)
    encoded = model.text_encoder(model.text_encoder.tokenize(TEXTS))
    torch.testing.assert_close(clip.encode_text(texts), encoded, **CLOSE)
    dense = DenseImageEncoder(clip.visual)
    assert torch.equal(dense(images(128)), model.image_encoder(images(128)))
    assert preprocess(Image.new("RGB", (80, 60))).shape == (3, 64, 64)


@pytest.mark.slow
def test_open_clips_folder_comes_back(tiny_config_of_each, tmp_path):
    """Architecture and weights, as a training would name them."""
    model = save_checkpoint(tiny_config_of_each, tmp_path / "model.pth")
    convert_checkpoint(tmp_path / "model.pth", tmp_path / "folder", "open_clip")
    config, weights = (
        str(tmp_path / "folder" / f"open_clip_{name}")
        for name in ("config.json", "model.safetensors")
    )
    loaded = load_clip(config, weights)
    for name, value in take_clip_weights(model.state_dict()).items():
        assert torch.equal(loaded.state_dict()[name], value), name


@torch.no_grad()
def test_transformers_weights_come_back(model, folder, tiny_vit_json):
    loaded = load_clip(tiny_vit_json, str(folder / "model.safetensors"))
    for name, value in take_clip_weights(model.state_dict()).items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.slow
@torch.no_grad()
def test_weights_that_come_from_transformers_only_are_loaded(folder, tiny_vit_json, tmp_path):
    clip = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(folder)).eval()
    clip.save_pretrained(tmp_path / "other")
    cfg = make_tiny_config(tiny_vit_json)
    cfg.MODEL.CLIP.PRETRAINED = str(tmp_path / "other" / "model.safetensors")
    ours, pixels = PixelCLIP(cfg).eval(), images()
    transformers.CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / "other")
    image_embeds, text_embeds = embed_with_transformers(tmp_path / "other", pixels)
    expected = clip_of(ours, tiny_vit_json).encode_image(pixels, normalize=True)
    torch.testing.assert_close(image_embeds, expected, **CLOSE)
    encoded = ours.text_encoder(ours.text_encoder.tokenize(TEXTS))
    torch.testing.assert_close(text_embeds, torch.nn.functional.normalize(encoded), **CLOSE)


@pytest.mark.slow
def test_half_precision_is_half_the_size(folder, source, tmp_path):
    done = convert_checkpoint(source, tmp_path / "half", "transformers", half=True)
    weights, halved = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "half"))
    assert all(torch.equal(halved[name], value.half()) for name, value in weights.items())
    files = (tmp_path / "half").iterdir()
    assert done.target_bytes == sum(file.stat().st_size for file in files)
    convert_checkpoint(source, tmp_path / "open", "open_clip", half=True)
    open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'open'}")


def test_what_transformers_does_not_have_is_refused(tiny_convnext_json, tmp_path):
    save_checkpoint(make_tiny_config(tiny_convnext_json), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="'test_convnext': choose --to open_clip"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "clip", "transformers")
    assert not list(tmp_path.glob("*clip*"))


@pytest.mark.parametrize(
    ("section", "setting", "problem"),
    [
        ("vision_cfg", {"ls_init_value": 0.1}, 'does not fit "transformers\' CLIPModel"'),
        ("vision_cfg", {"image_size": [64, 32]}, "not square"),
        ("vision_cfg", {"norm_kwargs": {"eps": 0.1}}, "gives another image embedding"),
        ("text_cfg", {"norm_kwargs": {"eps": 0.1}}, "gives another text embedding"),
    ],
)
def test_other_kinds_of_towers_are_refused(section, setting, problem, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**TINY_VIT, section: {**TINY_VIT[section], **setting}}))
    weights = load_clip(str(path), "").state_dict()
    with pytest.raises(ValueError, match=problem):
        CLIP_LAYOUTS["transformers"](str(tmp_path), str(path), weights)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("layout", CLIP_LAYOUTS)
def test_a_folder_is_whole_or_absent(model, source, layout, tmp_path, monkeypatch):
    target = tmp_path / "clip"
    target.mkdir()
    convert_checkpoint(source, target, layout)  # an empty one is filled
    before = {path: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(FileExistsError, match="choose another folder"):
        convert_checkpoint(source, target, layout)
    assert {path: path.read_bytes() for path in target.iterdir()} == before

    def fail(folder, *_):
        Path(folder, "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(CLIP_LAYOUTS, layout, fail)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(source, tmp_path / "other", layout)
    assert list(tmp_path.iterdir()) == [target]


def test_without_a_config_one_is_asked_for(model, tiny_config, tmp_path):
    bare = tmp_path / "bare.pth"
    torch.save({"model": model.state_dict()}, bare)
    with pytest.raises(ValueError, match="carries no config.*--config-file"):
        convert_checkpoint(bare, tmp_path / "clip", "open_clip")
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny_config))
    config = str(tmp_path / "tiny.yaml")
    convert_checkpoint(bare, tmp_path / "clip", "open_clip", config_file=config)
    tiny_config.MODEL.CLIP.ARCH = "toy"
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny_config))
    with pytest.raises(ValueError, match="does not fit 'toy'"):
        convert_checkpoint(bare, tmp_path / "x", "transformers", config_file=config)
