import pytest
import torch
from torch.nn import functional as F

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.text_classifier import build_text_classifier, embed_class_names
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
