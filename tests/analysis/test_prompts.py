import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelclip.analysis.prompts import (
    count_masks_of_prompts,
    embed_in_plane,
    find_nearest_names,
)
from tests.conftest import make_batch

from ..conftest import RecordingAssignment

NAMES = ["sky", "sea", "sofa, couch", "ship"]


def classifier(model, templates="single"):
    model.set_vocabulary(NAMES, templates)
    return model.text_classifier.features


def test_names_are_sorted_by_their_cosine(tiny_model):
    prompts = F.normalize(tiny_model.class_prompts(tiny_model.text_encoder), dim=-1)
    expected = (prompts @ classifier(tiny_model).T).detach()  # (8, 4)
    found = find_nearest_names(tiny_model, NAMES, 3, "single")
    assert len(found) == 8
    for row, names in zip(expected, found, strict=True):
        cosines = [near.cosine for near in names]
        assert cosines == sorted(cosines, reverse=True)
        assert cosines == pytest.approx(row.sort(descending=True).values[:3].tolist(), abs=1e-6)
        assert [row[NAMES.index(near.name)].item() for near in names] == pytest.approx(cosines)


def test_a_prompt_that_says_a_name_is_nearest_to_it(tiny_model):
    """Tokens of a name in the prompt give exactly the name's text in the template."""
    encoder = tiny_model.text_encoder
    placeholder = encoder.tokenize(["{}"])[0, 1]
    template = encoder.tokenize(["A photo of a {} {} {} {} in the scene"])[0]
    slots = torch.nonzero(template == placeholder).flatten()
    words = ["red", "old", "sea", "ship"]
    ids = encoder.tokenize([f"A photo of a {' '.join(words)} in the scene"])[0]
    assert placeholder not in ids
    with torch.no_grad():
        tiny_model.class_prompts.tokens[5] = encoder.embed_tokens(ids[slots])
    nearest = find_nearest_names(tiny_model, ["sky", " ".join(words)], 1, "single")[5]
    assert nearest[0].name == "red old sea ship"
    assert nearest[0].cosine == pytest.approx(1, abs=1e-5)


def test_fewer_names_than_asked_for_are_all_of_them(tiny_model):
    assert [len(names) for names in find_nearest_names(tiny_model, ["sky"], 3)] == [1] * 8


def test_the_models_vocabulary_stays(tiny_model):
    before = classifier(tiny_model).clone()
    find_nearest_names(tiny_model, ["tree", "car"])
    assert tiny_model.class_names == tuple(NAMES)
    assert torch.equal(tiny_model.text_classifier.features, before)


def test_unknown_templates_are_refused(tiny_model):
    with pytest.raises(ValueError, match="Unknown set of prompt templates"):
        find_nearest_names(tiny_model, NAMES, templates="none")


def test_masks_are_counted_as_training_clusters_them(tiny_model):
    batches = [make_batch(seed=seed) for seed in range(3)]
    expected = torch.zeros(8, dtype=torch.long)
    weights = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    counted = count_masks_of_prompts(tiny_model, batches)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, weights[name]), "nothing is trained"
    assignment = RecordingAssignment(tiny_model)
    for batch in batches:
        tiny_model.train().losses(batch)
        expected += torch.bincount(assignment.recorded[-1], minlength=8)
    assert torch.equal(counted, expected)
    assert counted.sum() == 3 * 2 * 4


def test_no_batch_gives_no_mask(tiny_model):
    assert count_masks_of_prompts(tiny_model, []).tolist() == [0] * 8


def groups(count, seed):
    """Vectors about four directions, in turn, with an offset of their own."""
    generator = np.random.default_rng(seed)
    centers = 10 * np.eye(4, 8)[np.arange(count) % 4]
    return centers + generator.normal(size=(count, 8)) + 5 * generator.normal(size=8)


def test_what_points_the_same_way_is_near_and_seeds_repeat():
    pytest.importorskip("sklearn")
    prompts, names = embed_in_plane(groups(24, 0), groups(12, 1))
    assert (prompts.shape, names.shape) == ((24, 2), (12, 2))
    distances = np.linalg.norm(prompts[:, None] - names[None], axis=2)
    assert (distances.argmin(axis=1) % 4 == np.arange(24) % 4).mean() > 0.8
    again, _ = embed_in_plane(groups(24, 0), groups(12, 1))
    np.testing.assert_array_equal(prompts, again)


def test_few_points_do():
    pytest.importorskip("sklearn")
    prompts, names = embed_in_plane(np.eye(2, 5), np.eye(1, 5))
    assert np.isfinite(prompts).all() and np.isfinite(names).all()
    with pytest.raises(ValueError, match="2 prompts and names"):
        embed_in_plane(np.eye(1, 5), np.eye(1, 5))


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "pixelclip\[visualization\]"'):
        embed_in_plane(np.eye(4), np.eye(4))
