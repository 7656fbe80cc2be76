import pytest
import torch
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier

from ..conftest import make_batch


def train_once(config, overrides):
    config.merge_from_list(overrides)
    model = PixelCLIP(config).train()
    loss = model(make_batch())["loss_masks"]
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    return model, loss


def test_free_vectors_train_without_the_text_encoder(tiny_config):
    model, _ = train_once(tiny_config, ["MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS", "free_vectors"])
    vectors = model.class_prompts.vectors
    assert vectors.shape == (8, 24)
    assert (vectors.grad.abs().sum(dim=1) > 0).all()


def test_class_names_stand_still(tiny_config):
    tiny_config.MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS = "class_names"
    model, _ = train_once(tiny_config, ["MODEL.PIXELCLIP.CLUSTER_NAMES", "cityscapes_19"])
    names, templates = get_vocabulary("cityscapes_19"), get_prompt_templates("imagenet_select")
    expected = build_text_classifier(model.text_encoder, names, templates)
    assert torch.equal(model.class_prompts(model.text_encoder), expected)
    assert len(model.cluster_usage) == 19
    assert not list(model.class_prompts.parameters())


def test_prompts_in_several_templates_train(tiny_config):
    model, _ = train_once(tiny_config, ["MODEL.PIXELCLIP.PROMPT_ENSEMBLE", "imagenet_select"])
    assert model.class_prompts.template_ids.shape == (8, 77)


def test_each_mask_to_its_nearest_cluster(tiny_config):
    tiny_config.MODEL.PIXELCLIP.ASSIGNMENT = "argmax"
    model = PixelCLIP(tiny_config)
    features, masks = torch.randn(1, 4, 4, 24), torch.rand(6, 32, 32) > 0.5
    clusters = torch.randn(8, 24)
    scores = model.score_masks(features, masks, torch.zeros(6).long(), clusters)
    assigned = model.assign_masks(scores)
    upsampled = F.interpolate(features.permute(0, 3, 1, 2), (32, 32), mode="bilinear")
    pooled = torch.stack([upsampled[0][:, mask].mean(dim=1) for mask in masks])
    cosines = F.cosine_similarity(pooled[:, None], clusters[None], dim=-1)
    assert torch.equal(assigned, cosines.argmax(dim=1))


@pytest.mark.parametrize("counts", [(4, 4), (3, 0), (0, 0)])
def test_without_clusters_each_mask_is_its_own_target(tiny_config, counts):
    tiny_config.MODEL.PIXELCLIP.ASSIGNMENT = "none"
    model = PixelCLIP(tiny_config).train()
    batch = [make_batch(1, count, seed=i)[0] for i, count in enumerate(counts)]
    loss = model(batch)["loss_masks"]
    loss.backward()
    assert (loss.item() > 0) == (sum(counts) > 0)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not model.class_prompts.tokens.requires_grad


def test_momentum_zero_makes_the_teacher_the_student(tiny_config):
    model, _ = train_once(tiny_config, ["MODEL.PIXELCLIP.MOMENTUM", 0.0])
    with torch.no_grad():
        for parameter in model.image_encoder.parameters():
            parameter.add_(1)
    model(make_batch())
    pairs = zip(model.teacher.parameters(), model.image_encoder.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("CLUSTER_EMBEDDINGS", "words", "'words'.*prompts, free_vectors, class_names"),
        ("ASSIGNMENT", "hungarian", "'hungarian'.*sinkhorn, argmax, none"),
        ("PROMPT_ENSEMBLE", "all", "imagenet_select"),
    ],
)
def test_unknown_values_are_refused(tiny_config, key, value, problem):
    tiny_config.MODEL.PIXELCLIP[key] = value
    with pytest.raises(ValueError, match=problem):
        PixelCLIP(tiny_config)
