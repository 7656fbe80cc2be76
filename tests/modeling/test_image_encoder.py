import open_clip
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from torch.nn import functional as F

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder, resize_positional_embedding


@pytest.fixture
def vit(tiny_vit_json):
    torch.manual_seed(1)
    return load_clip(tiny_vit_json, "").visual


def value_path_by_masked_attention(visual, images):
    """The same features with real attention in which every token may only see itself."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], dim=1)
    tokens = visual.ln_pre(tokens + visual.positional_embedding)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    last = visual.transformer.resblocks[-1]
    only_itself = torch.full((tokens.shape[1],) * 2, float("-inf")).fill_diagonal_(0)
    attended = last.attention(last.ln_1(tokens), attn_mask=only_itself) + tokens[:, :1]
    attended = attended + last.mlp(last.ln_2(attended))
    return (visual.ln_post(attended) @ visual.proj)[:, 1:].unflatten(1, (4, 4))


def test_vit_value_path_equals_self_only_attention(vit):
    images = torch.randn(2, 3, 64, 64)
    actual = DenseImageEncoder(vit)(images)
    expected = value_path_by_masked_attention(vit, images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    parameters = list(vit.parameters())
    for one, other in zip(
        torch.autograd.grad(actual.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_vit_takes_any_multiple_of_the_stride(vit):
    encoder = DenseImageEncoder(vit)
    assert encoder(torch.randn(1, 3, 48, 96)).shape == (1, 3, 6, 24)
    assert (encoder.stride, encoder.embedding_dim) == (16, 24)


def test_positional_embedding_keeps_class_token_and_constants(vit):
    with torch.no_grad():
        vit.positional_embedding[1:] = torch.arange(32.0)
    resized = resize_positional_embedding(vit, 7, 5)
    assert torch.equal(resized[0], vit.positional_embedding[0])
    torch.testing.assert_close(resized[1:], torch.arange(32.0).expand(35, -1))
    assert resize_positional_embedding(vit, 4, 4) is vit.positional_embedding


def test_convnext_with_one_position_equals_the_pooled_model(tiny_convnext_json):
    visual = load_clip(tiny_convnext_json, "").visual.eval()
    encoder = DenseImageEncoder(visual)
    images = torch.randn(2, 3, 64, 32)
    features = encoder(images)
    assert (encoder.stride, features.shape) == (32, (2, 2, 1, 24))
    trunk = visual.trunk
    normed = trunk.head.norm(trunk.forward_features(images))
    by_position = F.conv2d(normed, visual.head.proj.weight[:, :, None, None])
    torch.testing.assert_close(features, by_position.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-4)


def test_unsupported_tower_is_refused():
    config = open_clip.get_model_config("RN50")
    config["vision_cfg"].update(layers=[1, 1, 1, 1], width=8, image_size=64)
    with pytest.raises(ValueError, match="ModifiedResNet.*Supported are"):
        DenseImageEncoder(open_clip.CLIP(**config).visual)


def test_backbone_serves_another_detectron2_model(tiny_config_of_each):
    cfg = tiny_config_of_each
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "build_clip_backbone"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["dense"]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 8
    cfg.MODEL.SEM_SEG_HEAD.NORM = ""
    model = build_model(cfg)
    image = torch.randint(0, 256, (3, 60, 70))
    losses = model([{"image": image, "sem_seg": torch.randint(0, 5, (60, 70))}])
    losses["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.sem_seg_head.parameters())
    output = model.eval()([{"image": image, "height": 30, "width": 35}])
    assert output[0]["sem_seg"].shape == (5, 30, 35)


def test_backbone_output_shape_is_true(tiny_config):
    from detectron2.modeling import build_backbone

    backbone = build_backbone_of(tiny_config, build_backbone)
    images = ImageList.from_tensors([torch.rand(3, 50, 70)], backbone.size_divisibility).tensor
    shape = backbone.output_shape()["dense"]
    feature = backbone(images)["dense"]
    assert feature.shape == (
        1,
        shape.channels,
        images.shape[2] // shape.stride,
        images.shape[3] // shape.stride,
    )


def test_backbone_keeps_less_with_activation_checkpointing(tiny_config):
    from detectron2.modeling import build_backbone

    images, kept = torch.randn(2, 3, 64, 64), []
    for tiny_config.MODEL.CLIP.ACTIVATION_CHECKPOINTING in (False, True):
        backbone, sizes = build_backbone_of(tiny_config, build_backbone), []
        assert all(p.requires_grad for p in backbone.parameters())
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()), lambda _: None
        )
        with hooks:
            backbone(images)
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def build_backbone_of(cfg, build_backbone):
    cfg.MODEL.BACKBONE.NAME = "build_clip_backbone"
    return build_backbone(cfg)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_activation_checkpointing_changes_neither_values_nor_gradients(request, kind):
    torch.manual_seed(0)
    visual = load_clip(request.getfixturevalue(f"tiny_{kind}_json"), "").visual.train()
    images = torch.randn(2, 3, 64, 64)
    results, parameters = [], list(visual.parameters())
    for activation_checkpointing in (False, True):
        torch.manual_seed(1)  # of the ConvNeXt's stochastic depth
        encoder = DenseImageEncoder(visual, activation_checkpointing=activation_checkpointing)
        features = encoder(images)
        gradients = torch.autograd.grad(features.square().sum(), parameters, allow_unused=True)
        results.append((features, [g for g in gradients if g is not None]))
    torch.testing.assert_close(*results)


def test_activation_checkpointing_keeps_less(tiny_vit_json):
    visual = load_clip(tiny_vit_json, "").visual
    kept = []
    for activation_checkpointing in (False, True):
        encoder = DenseImageEncoder(visual, activation_checkpointing=activation_checkpointing)
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()), lambda _: None
        )
        with hooks:
            encoder(torch.randn(2, 3, 64, 64))
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_convnext_equals_timms_own_forward(tiny_convnext_json):
    visual = load_clip(tiny_convnext_json, "").visual.eval()
    images = torch.randn(1, 3, 64, 96)
    features = visual.trunk.head.norm(visual.trunk.forward_features(images))
    expected = visual.head(features.permute(0, 2, 3, 1))
    torch.testing.assert_close(DenseImageEncoder(visual)(images), expected)
