import functools
import pickle

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances, PolygonMasks

from pixelclip import PixelCLIP

from .conftest import make_batch, remove_stochastic_depth


def test_trains_what_should_train_and_only_that(tiny_config_of_each):
    model = build_model(tiny_config_of_each).train()
    assert isinstance(model, PixelCLIP)
    losses = model(make_batch())
    assert list(losses) == ["loss_masks"]
    losses["loss_masks"].backward()
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        if part in ("text_encoder", "teacher"):
            assert not parameter.requires_grad
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert model.class_prompts.tokens.grad.abs().sum() > 0


def test_masks_and_instances_give_the_same_loss(tiny_model):
    batch = make_batch()
    as_masks = tiny_model(batch)["loss_masks"]
    as_instances = []
    for inputs in batch:
        # Every mask pixel drawn as a 3x2 block, which nearest-neighbor resizing undoes.
        full = inputs["masks"].repeat_interleave(3, dim=1).repeat_interleave(2, dim=2)
        instances = Instances((96, 64), gt_masks=BitMasks(full))
        as_instances.append({**inputs, "instances": instances})
        del as_instances[-1]["masks"]
    torch.testing.assert_close(tiny_model(as_instances)["loss_masks"], as_masks)


@pytest.mark.parametrize("key", ["masks", "instances"])
def test_without_masks_the_loss_is_zero_and_trains_nothing(tiny_model, key):
    batch = make_batch(masks_per_image=0)
    if key == "instances":
        for inputs in batch:
            del inputs["masks"]
            empty = BitMasks(torch.zeros(0, 80, 96, dtype=torch.bool))
            inputs["instances"] = Instances((80, 96), gt_masks=empty)
    loss = tiny_model(batch)["loss_masks"]
    loss.backward()
    assert loss.item() == 0
    gradients = [p.grad for p in tiny_model.parameters() if p.requires_grad]
    assert all(g is not None and g.abs().sum() == 0 for g in gradients)


def test_dino_masks_take_the_place_of_the_inputs_masks(tiny_config):
    tiny_config.merge_from_list(
        [
            *("MODEL.PIXELCLIP.MASK_SOURCE", "dino", "MODEL.PIXELCLIP.DINO.MODEL", "test_vit"),
            *("MODEL.PIXELCLIP.DINO.WEIGHTS", "", "MODEL.PIXELCLIP.DINO.NUM_MASKS", 3),
        ]
    )
    model = PixelCLIP(tiny_config).train()
    batch = make_batch()
    masks, image_index = model.training_masks(batch, model.device)
    assert image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert (masks.reshape(2, 3, 32, 32).sum(dim=1) == 1).all(), "each image is divided"
    names = {*model.state_dict(), *dict(model.named_parameters())}
    assert not any("dino" in name for name in names)
    for inputs in batch:
        del inputs["masks"]
    model(batch)["loss_masks"].backward()
    assert model.class_prompts.tokens.grad.abs().sum() > 0
    tiny_config.MODEL.PIXELCLIP.MASK_SOURCE = "dataset"
    fitting = PixelCLIP(tiny_config).load_state_dict(model.state_dict())
    assert not fitting.missing_keys


def test_clusters_can_be_the_classes(tiny_model):
    inputs = [{"image": make_batch()[0]["image"]}]
    tiny_model.eval().set_clusters_as_classes()
    scores = tiny_model(inputs)[0]["sem_seg"]
    assert scores.shape == (8, 80, 96)
    assert tiny_model.class_names[7] == "cluster 7"
    assert torch.equal(tiny_model.segment_labels(inputs)[0], scores.argmax(dim=0))
    with torch.no_grad():
        weights = tiny_model.state_dict()
        weights["class_prompts.tokens"] = weights["class_prompts.tokens"].flip(0)
    tiny_model.load_state_dict(weights)
    torch.testing.assert_close(tiny_model(inputs)[0]["sem_seg"], scores.flip(0))
    tiny_model.set_vocabulary(["sky", "sea"])
    assert tiny_model(inputs)[0]["sem_seg"].shape == (2, 80, 96)


def test_instances_without_masks_and_of_other_kinds(tiny_model):
    batch = make_batch(masks_per_image=0)
    for inputs in batch:
        del inputs["masks"]
    with pytest.raises(ValueError, match=r"\['image', 'image_strong'\]; expected 'masks'"):
        tiny_model(batch)
    for inputs in batch:
        inputs["instances"] = Instances((80, 96))  # as Detectron2 makes it without annotations
    assert tiny_model(batch)["loss_masks"].item() == 0
    polygons = PolygonMasks([[[0.0, 0.0, 5.0, 0.0, 5.0, 5.0]]])
    batch[0]["instances"] = Instances((80, 96), gt_masks=polygons)
    with pytest.raises(ValueError, match="PolygonMasks.*bitmask"):
        tiny_model(batch)


def test_model_can_be_pickled(tiny_model):
    restored = pickle.loads(pickle.dumps(tiny_model))
    torch.testing.assert_close(restored(make_batch()), tiny_model(make_batch()))


def test_masks_of_at_most_one_pixel_are_dropped(tiny_model):
    batch = make_batch()
    tiny_model.teacher.momentum = 1.0
    expected = tiny_model(batch)["loss_masks"]
    for inputs in batch:
        specks = torch.zeros(2, 32, 32, dtype=torch.bool)
        specks[0, 3, 4] = True
        inputs["masks"] = torch.cat([specks, inputs["masks"]])
    torch.testing.assert_close(tiny_model(batch)["loss_masks"], expected)
    masks, _ = tiny_model.training_masks(batch, tiny_model.device)
    assert len(masks) == 8


def test_masks_of_another_resolution_are_refused(tiny_model):
    batch = make_batch()
    batch[0]["masks"] = torch.ones(2, 16, 16, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 16, 16\).*32"):
        tiny_model(batch)


def test_teacher_follows_in_the_training_forward_only(tiny_model):
    before = [p.clone() for p in tiny_model.teacher.parameters()]
    with torch.no_grad():
        for parameter in tiny_model.image_encoder.parameters():
            parameter.add_(1.0)
    tiny_model.eval()
    tiny_model.set_vocabulary(["cat", "dog"])
    tiny_model([{"image": torch.zeros(3, 64, 64)}])
    for old, new in zip(before, tiny_model.teacher.parameters(), strict=True):
        assert torch.equal(old, new)
    tiny_model.train()
    tiny_model(make_batch())
    for old, new in zip(before, tiny_model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.001, atol=1e-5, rtol=1e-4)


def test_inference_of_a_batch_equals_the_images_one_by_one(tiny_model):
    tiny_model.eval()
    tiny_model.set_vocabulary(["sky", "sofa, couch", "tree"])
    sizes = [(64, 64), (80, 50), (33, 97)]
    inputs = [
        {"image": torch.randint(0, 256, (3, *size)), "height": 2 * size[0], "width": size[1] + 1}
        for size in sizes
    ]
    together = tiny_model(inputs)
    for one, result, size in zip(inputs, together, sizes, strict=True):
        assert result["sem_seg"].shape == (3, 2 * size[0], size[1] + 1)
        assert result["sem_seg"].abs().max() <= 1 + 1e-5
        alone = tiny_model([one])[0]["sem_seg"]
        torch.testing.assert_close(result["sem_seg"], alone, atol=1e-5, rtol=1e-4)


def test_vocabulary_of_the_first_test_set_is_the_default(tiny_config):
    metadata = MetadataCatalog.get("three_classes_for_this_test")
    metadata.stuff_classes = ["sky", "sea", "sand"]
    tiny_config.DATASETS.TEST = ("three_classes_for_this_test",)
    model = PixelCLIP(tiny_config).eval()
    output = model([{"image": torch.zeros(3, 40, 50)}])[0]["sem_seg"]
    assert output.shape == (3, 40, 50)
    model.set_vocabulary(["one"])
    assert model([{"image": torch.zeros(3, 40, 50)}])[0]["sem_seg"].shape[0] == 1


def test_without_any_vocabulary_it_says_what_to_do(tiny_model):
    with pytest.raises(ValueError, match="set_vocabulary"):
        tiny_model.eval()([{"image": torch.zeros(3, 64, 64)}])


def test_new_weights_make_a_new_classifier(tiny_model):
    tiny_model.set_vocabulary(["cat", "dog"])
    old = tiny_model.text_classifier.features
    weights = tiny_model.state_dict()
    weights["text_encoder.positional_embedding"] = torch.randn(77, 32)
    tiny_model.load_state_dict(weights)
    assert not torch.allclose(tiny_model.text_classifier.features, old)
    assert tiny_model.class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [[], ["cat", ""], ["cat", "  "], "cat", ["cat", 3]])
def test_bad_vocabularies_are_refused(tiny_model, names):
    tiny_model.set_vocabulary(["kept"])
    with pytest.raises(ValueError):
        tiny_model.set_vocabulary(names)
    assert tiny_model.class_names == ("kept",)


def test_unknown_templates_are_refused(tiny_model):
    with pytest.raises(ValueError, match="imagenet_select"):
        tiny_model.set_vocabulary(["cat"], templates="imagenet_selct")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("MODEL.CLIP.RESOLUTION", (60, 64), "multiples"),
        ("MODEL.CLIP.RESOLUTION", (64,), "positive integers"),
        ("MODEL.PIXELCLIP.MASK_RESOLUTION", (0, 32), "MASK_RESOLUTION.*positive integers"),
        ("MODEL.PIXELCLIP.TEST_FEATURE_SIZE", (8, 8, 8), "TEST_FEATURE_SIZE"),
        ("MODEL.PIXELCLIP.SINKHORN_ITERS", 0, "SINKHORN_ITERS is 0"),
        ("MODEL.PIXELCLIP.ASSIGNMENT_SCALE", float("nan"), "ASSIGNMENT_SCALE nan"),
        ("MODEL.PIXEL_MEAN", [0.5], "three values"),
        ("MODEL.CLIP.FINETUNE", "all", "attention, full, none"),
        ("MODEL.PIXELCLIP.TEST_TEMPLATES", "unknown", "imagenet_select"),
        ("MODEL.PIXELCLIP.MASK_SOURCE", "sam", "'sam'.*dataset"),
        ("MODEL.PIXELCLIP.MOMENTUM", 2.0, "between 0 and 1"),
        ("INPUT.FORMAT", "BGR", "RGB"),
    ],
)
def test_bad_settings_are_refused_with_their_values(tiny_config, key, value, problem):
    tiny_config.merge_from_list([key, value])
    with pytest.raises(ValueError, match=problem):
        PixelCLIP(tiny_config)


MODES = {
    "whole": ["TEST.INFERENCE_MODE", "whole"],
    "keep_aspect": ["TEST.INFERENCE_MODE", "keep_aspect"],
    "sliding_window": [
        *("TEST.INFERENCE_MODE", "sliding_window"),
        *("TEST.WINDOW_SIZE", 40, "TEST.WINDOW_STRIDE", 25),
    ],
    "flip": ["TEST.FLIP", True],
}


def segmenter(config, overrides=()):
    config.merge_from_list(list(overrides))
    torch.manual_seed(0)
    model = PixelCLIP(config).eval()
    model.set_vocabulary(["sky", "sofa, couch", "tree"])
    return model


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_takes_batches_of_mixed_sizes(tiny_config_of_each, mode):
    model = segmenter(tiny_config_of_each, MODES[mode])
    sizes = [(64, 64), (80, 50), (33, 97), (80, 50)]
    inputs = [
        {"image": torch.randint(0, 256, (3, *size)), "height": 45, "width": size[1]}
        for size in sizes
    ]
    together = model(inputs)
    for one, result, size in zip(inputs, together, sizes, strict=True):
        assert result["sem_seg"].shape == (3, 45, size[1])
        alone = model([one])[0]["sem_seg"]
        torch.testing.assert_close(result["sem_seg"], alone, atol=1e-5, rtol=1e-4)


def test_one_window_over_the_image_equals_the_whole_image(tiny_config):
    inputs = [{"image": torch.randint(0, 256, (3, 50, 70)), "height": 100, "width": 91}]
    expected = segmenter(tiny_config)(inputs)[0]["sem_seg"]
    window = ["TEST.INFERENCE_MODE", "sliding_window", "TEST.WINDOW_SIZE", 160]
    assert torch.equal(segmenter(tiny_config, window)(inputs)[0]["sem_seg"], expected)


def test_flips_average(tiny_config):
    image = torch.randint(0, 256, (3, 50, 70))
    plain = segmenter(tiny_config)
    straight = plain([{"image": image}])[0]["sem_seg"]
    flipped = plain([{"image": image.flip(-1)}])[0]["sem_seg"].flip(-1)
    both = segmenter(tiny_config, MODES["flip"])([{"image": image}])[0]["sem_seg"]
    torch.testing.assert_close(both, (straight + flipped) / 2)


def test_aspect_ratio_is_kept_by_a_larger_feature_map(tiny_config):
    model = segmenter(tiny_config, MODES["keep_aspect"])
    (scored,) = model.score_images([{"image": torch.zeros(3, 50, 100)}])
    assert scored.scores[0].shape == (3, 8, 16)


def test_background_words_and_thresholds(tiny_config):
    image = torch.randint(0, 256, (3, 64, 64))
    names = ["cat", "dog", "background"]
    model = segmenter(tiny_config)
    model.set_vocabulary(["cat", "dog", "sky", "wall"])
    four = model([{"image": image}])[0]["sem_seg"]
    model = segmenter(tiny_config, ["TEST.BACKGROUND_WORDS", ("sky", "wall")])
    model.set_vocabulary(names, background_index=2)
    three = model([{"image": image}])[0]["sem_seg"]
    torch.testing.assert_close(three[:2], four[:2])
    assert (three[2] >= four[2:].amax(dim=0) - 1e-6).all()
    threshold = four[:2].amax(dim=0).median().item()
    overrides = ["TEST.BACKGROUND_WORDS", (), "TEST.BACKGROUND_THRESHOLD", threshold]
    model = segmenter(tiny_config, overrides)
    model.set_vocabulary(names, background_index=2)
    labels = model([{"image": image}])[0]["sem_seg"].argmax(dim=0)
    assert torch.equal(labels == 2, four[:2].amax(dim=0) < threshold)
    with pytest.raises(ValueError, match="background_index is 3"):
        model.set_vocabulary(names, background_index=3)


LABEL_SETTINGS = {
    "whole": [],
    "flipped": ["TEST.FLIP", True],
    "keep_aspect": ["TEST.INFERENCE_MODE", "keep_aspect"],
    "windows": [
        *("TEST.INFERENCE_MODE", "sliding_window", "TEST.FLIP", True),
        *("TEST.WINDOW_SIZE", 40, "TEST.WINDOW_STRIDE", 30),
    ],
    "threshold": ["TEST.BACKGROUND_THRESHOLD", 0.1],
    "words": ["TEST.BACKGROUND_WORDS", ("wall", "floor"), "TEST.FLIP", True],
}


@pytest.mark.parametrize("key", LABEL_SETTINGS)
def test_labels_are_the_best_scores(tiny_config, key):
    tiny_config.merge_from_list(LABEL_SETTINGS[key])
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config).eval()
    names = [f"class {index}" for index in range(12)] + ["class 3", "background"]
    is_background = key in ("threshold", "words")
    model.set_vocabulary(names, background_index=len(names) - 1 if is_background else None)
    batch = [
        {"image": torch.randint(0, 256, (3, 70, 90)), "height": 150, "width": 201},
        {"image": torch.randint(0, 256, (3, 41, 30))},
    ]
    with torch.no_grad():
        expected = [output["sem_seg"].argmax(dim=0) for output in model(batch)]
    labels = model.segment_labels(batch)
    assert [tuple(x.shape) for x in labels] == [(150, 201), (41, 30)]
    for label_map, best in zip(labels, expected, strict=True):
        assert label_map.dtype == torch.uint8
        assert torch.equal(label_map.long(), best)
    assert len(labels[0].unique()) > 1


def test_labels_of_many_classes_fit_their_type(tiny_model):
    tiny_model.eval().set_vocabulary([f"class {index}" for index in range(257)], "imagenet_select")
    batch = [{"image": torch.randint(0, 256, (3, 30, 40))}]
    labels = tiny_model.segment_labels(batch)[0]
    assert labels.dtype == torch.int32
    assert torch.equal(labels.long(), tiny_model(batch)[0]["sem_seg"].argmax(dim=0))


def test_a_vocabulary_is_embedded_once(tiny_model, monkeypatch):
    embedded = []
    encode = tiny_model.text_encoder.forward
    monkeypatch.setattr(
        tiny_model.text_encoder, "forward", lambda ids: (embedded.append(len(ids)), encode(ids))[1]
    )
    tiny_model.set_vocabulary(["sky", "sea"])
    first = tiny_model.text_classifier.features
    tiny_model.set_vocabulary(["sand"])
    assert len(embedded) == 2
    tiny_model.set_vocabulary(["sky", "sea"])
    assert len(embedded) == 2
    assert torch.equal(tiny_model.text_classifier.features, first)
    assert tiny_model.class_names == ("sky", "sea")
    tiny_model.set_vocabulary(["sea", "sky"])  # another order is another vocabulary
    assert len(embedded) == 3
    for index in range(20):
        tiny_model.set_vocabulary([f"class {index}"])
    assert len(tiny_model.text_classifier._cache) == 16
    tiny_model.load_state_dict(tiny_model.state_dict())
    assert not tiny_model.text_classifier._cache


def test_a_model_for_inference_gives_the_same_and_refuses_training(tiny_config_of_each):
    whole = PixelCLIP(tiny_config_of_each).eval()
    model = PixelCLIP(tiny_config_of_each, for_training=False)
    weights = whole.state_dict()
    for name in set(weights) - set(model.state_dict()):
        assert name.startswith(("teacher.", "mask_decoder."))
        del weights[name]
    model.load_state_dict(weights)
    for one in (whole, model):
        one.set_vocabulary(["cat", "dog"])
    inputs = [{"image": make_batch()[0]["image"]}]
    assert torch.equal(model(inputs)[0]["sem_seg"], whole(inputs)[0]["sem_seg"])
    with pytest.raises(RuntimeError, match="built for inference: build PixelCLIP"):
        model.train()
    assert not model.training


@pytest.mark.slow
def test_compiled_modules_keep_names_and_values(tiny_config_of_each, monkeypatch):
    # Without code generation, which needs a compiler; test_cuda.py runs all of it.
    compiler = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function))
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config_of_each).train()
    tiny_config_of_each.MODEL.COMPILE = True
    compiled = PixelCLIP(tiny_config_of_each).train()
    compiled.load_state_dict(model.state_dict())
    for one in (model, compiled):
        remove_stochastic_depth(one)
    losses = [one(make_batch())["loss_masks"] for one in (model, compiled)]
    torch.testing.assert_close(*losses)
    losses[1].backward()
    assert all(p.grad is not None for p in compiled.parameters() if p.requires_grad)
    pickle.loads(pickle.dumps(compiled))
