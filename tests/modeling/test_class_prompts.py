import pytest
import torch

from pixelclip.modeling.class_prompts import ClassPrompts
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.text_encoder import TextEncoder

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
def test_every_placeholder_is_found_beside_other_signs(encoder, template):
    prompts = ClassPrompts(encoder, 2, 4, [template])
    placeholder = encoder.tokenize(["{}"])[0, 1]
    assert (prompts.template_ids == placeholder).sum() == 4
    ids = prompts.template_ids[0].clone()
    filled = encoder.embed_tokens(ids).repeat(2, 1, 1)
    filled[:, ids == placeholder] = prompts.tokens.detach()
    expected = encoder.encode_embeddings(filled, ids.argmax().expand(2))
    torch.testing.assert_close(prompts(encoder), expected, atol=1e-6, rtol=1e-5)


def test_several_templates_average_their_embeddings_before_normalisation(encoder):
    templates = ["a photo of a {}.", "art of the {}.", TEMPLATE]
    torch.manual_seed(0)
    together = ClassPrompts(encoder, 3, 2, templates)
    alone = [ClassPrompts(encoder, 3, 2, [template]) for template in templates]
    for prompts in alone:
        prompts.tokens.data = together.tokens.data
    embeddings = torch.stack([p(encoder) for p in alone])  # (3 templates, 3 clusters, d)
    # Longer embeddings count for more, which a mean of normalised ones would not show.
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
