import pytest
import torch
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.modeling.class_prompts import ClassPrompts
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.modeling.text_encoder import TextEncoder

from ..conftest import make_batch

TEMPLATE = "A photo of a {} in the scene"


@pytest.fixture(scope="module")
def encoder(tiny_vit_json):
    torch.manual_seed(3)
    return TextEncoder(load_clip(tiny_vit_json, ""))


def test_starts_from_token_embeddings(encoder):
    prompts = ClassPrompts(encoder, num_clusters=5, prompt_length=4, templates=[TEMPLATE])
    assert prompts.tokens.shape == (5, 4, 32)
    distances = torch.cdist(prompts.tokens.detach().flatten(0, 1), encoder.token_embedding.weight)
    assert distances.min(dim=1).values.max() < 1e-4


def test_prompt_of_words_equals_the_sentence(encoder):
    prompts = ClassPrompts(encoder, num_clusters=2, prompt_length=3, templates=[TEMPLATE])
    words = encoder.tokenize(["big red house", "small blue car"])
    prompts.tokens.data = encoder.embed_tokens(words[:, 1:4])
    sentences = [TEMPLATE.format("big red house"), TEMPLATE.format("small blue car")]
    expected = encoder(encoder.tokenize(sentences))
    torch.testing.assert_close(prompts(encoder), expected, atol=1e-6, rtol=1e-5)


def test_only_the_tokens_train(encoder):
    prompts = ClassPrompts(encoder, 3, 4, [TEMPLATE])
    prompts(encoder).square().sum().backward()
    assert [name for name, _ in prompts.named_parameters()] == ["tokens"]
    assert (prompts.tokens.grad.abs().sum(dim=-1) > 0).all()
    assert list(prompts.state_dict()) == ["tokens"]


@pytest.mark.parametrize("template", ["a photo of a {}.", "({})", "{}", "the{}thing"])
def test_every_placeholder_is_found_next_to_punctuation(encoder, template):
    prompts = ClassPrompts(encoder, 2, 4, [template])
    placeholder = encoder.tokenize(["{}"])[0, 1]
    assert (prompts.template_ids == placeholder).sum() == 4
    ids = prompts.template_ids[0].clone()
    filled = encoder.embed_tokens(ids).repeat(2, 1, 1)
    filled[:, ids == placeholder] = prompts.tokens.detach()
    expected = encoder.encode_embeddings(filled, ids.argmax().expand(2))
    torch.testing.assert_close(prompts(encoder), expected, atol=1e-6, rtol=1e-5)


def test_several_templates_average_their_embeddings_before_normalization(encoder):
    templates = ["a photo of a {}.", "art of the {}.", TEMPLATE]
    torch.manual_seed(0)
    together = ClassPrompts(encoder, 3, 2, templates)
    alone = [ClassPrompts(encoder, 3, 2, [template]) for template in templates]
    for prompts in alone:
        prompts.tokens.data = together.tokens.data
    embeddings = torch.stack([p(encoder) for p in alone])  # (3 templates, 3 clusters, d)
    # Longer embeddings count for more, which a mean of normalized ones would not show.
    assert (embeddings.norm(dim=-1).std(dim=0) > 1e-3).all()
    torch.testing.assert_close(together(encoder), embeddings.mean(dim=0))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((0, 4, [TEMPLATE]), "at least 1"),
        ((4, 0, [TEMPLATE]), "at least 1"),
        ((4, 4, ["A photo"]), "exactly one {}"),
        ((4, 4, [TEMPLATE, "{} and {}"]), "exactly one {}"),
        ((4, 80, [TEMPLATE]), "75 tokens.*PROMPT_LENGTH, which is 80"),
    ],
)
def test_bad_arguments_are_refused(encoder, arguments, problem):
    with pytest.raises(ValueError, match=problem):
        ClassPrompts(encoder, *arguments)


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
    assert not list(model.class_prompts.parameters())


def test_prompts_in_several_templates_train(tiny_config):
    model, _ = train_once(tiny_config, ["MODEL.PIXELCLIP.PROMPT_ENSEMBLE", "imagenet_select"])
    assert model.class_prompts.template_ids.shape == (8, 77)


def test_each_mask_to_its_nearest_cluster(tiny_config):
    tiny_config.MODEL.PIXELCLIP.ASSIGNMENT = "argmax"
    model = PixelCLIP(tiny_config)
    features, masks = torch.randn(1, 4, 4, 24), torch.rand(6, 32, 32) > 0.5
    clusters = torch.randn(8, 24)
    mask_features = pool_masks(features, masks, torch.zeros(6).long())
    logits = model.assignment.logits(mask_features, clusters)
    assigned = model.assignment.probabilities(logits).argmax(dim=1)
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
