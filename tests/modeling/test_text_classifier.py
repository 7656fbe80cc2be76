import pytest
import torch
from torch.nn import functional as F

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.text_classifier import Background, build_text_classifier, embed_class_names
from pixelclip.modeling.text_encoder import TextEncoder

TEMPLATES = ("a photo of a {}.", "art of the {}.", "itap of {article} {category}.")


@pytest.fixture(scope="module")
def encoder(tiny_vit_json):
    torch.manual_seed(4)
    return TextEncoder(load_clip(tiny_vit_json, ""))


def embed(encoder, text):
    return F.normalize(encoder(encoder.tokenize([text]))[0], dim=-1)


def test_equals_the_definition_text_by_text(encoder):
    names = ["dog", "sofa, couch, settee", "apple"]
    features = embed_class_names(encoder, names, TEMPLATES)
    for c, name in enumerate(names):
        for t, template in enumerate(TEMPLATES):
            words = []
            for synonym in name.split(", "):
                article = "an" if synonym == "apple" else "a"
                text = template.replace("{}", synonym).replace("{category}", synonym)
                words.append(embed(encoder, text.replace("{article}", article)))
            expected = F.normalize(torch.stack(words).mean(dim=0), dim=-1)
            torch.testing.assert_close(features[c, t], expected, atol=1e-5, rtol=1e-4)
    classifier = build_text_classifier(encoder, names, TEMPLATES)
    torch.testing.assert_close(classifier, F.normalize(features.mean(dim=1), dim=-1))


def test_a_comma_without_blank_belongs_to_the_name(encoder):
    one = embed_class_names(encoder, ["sofa,couch"], TEMPLATES)
    two = embed_class_names(encoder, ["sofa, couch"], TEMPLATES)
    assert not torch.allclose(one, two, atol=1e-4)


def test_more_texts_than_one_batch(encoder, monkeypatch):
    names = ["dog", "cat, kitten", "tree"]
    expected = build_text_classifier(encoder, names, TEMPLATES)
    monkeypatch.setattr("pixelclip.modeling.text_classifier._TEXTS_PER_BATCH", 5)
    actual = build_text_classifier(encoder, names, TEMPLATES)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_too_long_name_is_refused_before_anything_is_encoded(encoder, monkeypatch):
    monkeypatch.setattr(TextEncoder, "forward", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ValueError, match="shorten the class name"):
        build_text_classifier(encoder, ["dog", "very " * 80 + "long"], TEMPLATES)


NAMES = ["cat", "background", "dog"]


def test_its_own_name_is_the_only_word_by_default():
    background = Background()
    assert background.names(NAMES, 1) == ["cat", "dog", "background"]
    scores = torch.tensor([0.1, 0.2, 0.3])
    merged = background.merge(scores, 3, 1).tolist()
    assert merged == pytest.approx([0.1, 0.3, 0.2])


def test_the_best_of_several_words_counts():
    background = Background(words=("sky", "wall", "grass"))
    assert background.names(NAMES, 1) == ["cat", "dog", "sky", "wall", "grass"]
    scores = torch.rand(4, 6, 5)
    merged = background.merge(scores, 3, 1)
    assert merged.shape == (4, 6, 3)
    torch.testing.assert_close(merged[..., 1], scores[..., 2:].amax(dim=-1))
    torch.testing.assert_close(merged[..., [0, 2]], scores[..., :2])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pixel_below_the_threshold_is_background(index):
    background = Background(threshold=0.25)
    names = NAMES[:]
    assert len(background.names(names, index)) == 2
    scores = torch.tensor([[0.2, 0.1], [0.3, 0.26]])  # of two pixels
    labels = background.merge(scores, 3, index).argmax(dim=-1)
    assert labels[0] == index
    assert labels[1] != index


def test_words_and_threshold_together():
    merged = Background(0.25, ("sky",)).merge(torch.tensor([0.1, 0.2, 0.9]), 3, 2)
    assert merged.tolist() == pytest.approx([0.1, 0.2, 0.9])
