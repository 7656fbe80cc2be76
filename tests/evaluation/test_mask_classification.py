import dataclasses

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.evaluation import inference_on_dataset
from torch import nn
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.evaluation import (
    MaskClassificationEvaluator,
    MaskClassifier,
    MaskRegionsMapper,
    build_evaluator,
    classify_masks,
)
from pixelclip.evaluation.mask_classification import paint
from pixelclip.modeling.text_classifier import Background

from .labeled_sets import CLASS_NAMES, register_labeled_set, remove_labeled_set

C = len(CLASS_NAMES)


@pytest.fixture
def model(tiny_model):
    tiny_model.eval().set_vocabulary(CLASS_NAMES)
    return tiny_model


def random_image(seed, height=40, width=56):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    masks = torch.rand(4, height, width, generator=generator) < 0.2
    return image, masks


def classify_one_by_one(model, image, masks):
    """Upsample the features, resize the mask, take the mean, compare: as the paper says it."""
    features = model.image_encoder(model.preprocess([image])).permute(0, 3, 1, 2)
    features = F.interpolate(features, (32, 32), mode="bilinear", align_corners=False)[0]
    rows = []
    for mask in masks:
        small = F.interpolate(mask[None, None].float(), (32, 32), mode="nearest")[0, 0] > 0
        mean = torch.stack([features[:, y, x] for y, x in small.nonzero().tolist()]).mean(dim=0)
        cosines = [F.cosine_similarity(mean, c, dim=0) for c in model.text_classifier.features]
        rows.append(torch.stack(cosines))
    return torch.stack(rows)


@torch.no_grad()
def test_equals_the_obvious_loop(model):
    image, masks = random_image(0)
    expected = classify_one_by_one(model, image, masks)
    torch.testing.assert_close(classify_masks(model, image, masks), expected)


def test_masks_of_no_pixel_and_of_no_image_are_refused(model):
    image, masks = random_image(0)
    masks[2] = False
    with pytest.raises(ValueError, match=r"masks \[2\] are empty"):
        classify_masks(model, image, masks)
    with pytest.raises(ValueError, match=r"\(40, 56\).*\(N, height, width\)"):
        classify_masks(model, image, masks[0])


def test_crops_have_their_say(tiny_config):
    tiny_config.MODEL.PIXELCLIP.TEST_MASK_FEATURES = "pooled_and_crop"
    model = PixelCLIP(tiny_config).eval()
    model.set_vocabulary(CLASS_NAMES)
    image, masks = random_image(0)
    similarity = classify_masks(model, image, masks)
    views, scorer = model.inference_views, model.inference_views.crop_scorer
    model.inference_views = dataclasses.replace(views, crop_scorer=None)
    small = F.interpolate(masks[None].float(), (32, 32), mode="nearest")[0] > 0
    crops = scorer(model.normalize(image), small, model.text_classifier)
    assert len(crops.scores) == len(masks)
    expected = crops.mix_into(classify_masks(model, image, masks))
    torch.testing.assert_close(similarity, expected)


def test_no_masks_have_no_classes(model):
    image, masks = random_image(0)
    assert classify_masks(model, image, masks[:0]).shape == (0, C)


def test_a_background_class_is_what_inference_takes_for_it(model):
    image, masks = random_image(1)
    names = ["sky", "everything else", "sea"]
    model.set_vocabulary(names, background_index=1)
    by_name = classify_masks(model, image, masks)
    model.set_vocabulary(names)
    torch.testing.assert_close(classify_masks(model, image, masks), by_name)
    model.text_classifier.background = Background(threshold=2.0)
    model.set_vocabulary(names, background_index=1)
    thresholded = classify_masks(model, image, masks)
    assert (thresholded.argmax(dim=1) == 1).all()
    torch.testing.assert_close(thresholded[:, [0, 2]], by_name[:, [0, 2]])


def make_inputs(seed, height=40, width=56):
    image, masks = random_image(seed, height, width)
    index_map = torch.full((height, width), -1)
    for index, mask in enumerate(masks):
        index_map[mask] = index
    small = F.interpolate(masks[None].float(), (32, 32), mode="nearest")[0] > 0
    classes = torch.tensor([0, 1, 2, C])  # the last one is void
    size = {"height": height, "width": width}
    return {"image": image, "masks": small, "mask_index_map": index_map, "classes": classes, **size}


def test_a_batch_equals_single_images(model):
    empty = make_inputs(9)
    nowhere = torch.full_like(empty["mask_index_map"], -1)
    empty = {**empty, "masks": empty["masks"][:0], "mask_index_map": nowhere}
    batch = [make_inputs(0), empty, make_inputs(1, 30, 30)]
    classifier = MaskClassifier(model, fill_missing=True)
    for inputs, output in zip(batch, classifier(batch), strict=True):
        [single] = classifier([inputs])
        for key, value in single.items():
            torch.testing.assert_close(output[key], value)


@pytest.mark.parametrize("fill_missing", [True, False])
def test_pixels_have_the_scores_of_their_mask(model, fill_missing):
    inputs = make_inputs(2)
    [output] = MaskClassifier(model, fill_missing)([inputs])
    outside = torch.zeros(C, 40, 56)
    if fill_missing:
        outside = model.inference([inputs])[0]["sem_seg"]
    assert (inputs["mask_index_map"] < 0).any()
    for (row, column), index in np.ndenumerate(inputs["mask_index_map"].numpy()):
        expected = outside[:, row, column] if index < 0 else output["mask_similarity"][index]
        torch.testing.assert_close(output["sem_seg"][:, row, column], expected)


def test_painting_without_masks_is_zero():
    assert paint(torch.zeros(0, 3), torch.full((2, 2), -1)).equal(torch.zeros(3, 2, 2))


class SeesLabels(nn.Module):
    """An image encoder whose features are the class vectors of labels written into the image."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        labels = images[:, 0, 4::8, 4::8].round().long()  # (B, 8, 8)
        return self.classifier[labels]


@pytest.fixture
def blocks(tmp_path):
    """Two label maps of 64x64 pixels in blocks of one class, with a strip of void."""
    generator = np.random.default_rng(3)
    labels = []
    for _ in range(2):
        label = np.kron(generator.integers(0, C, (2, 2)), np.ones((32, 32))).astype(np.uint8)
        label[:8] = 255
        labels.append(label)
    register_labeled_set(tmp_path / "blocks", "blocks", labels)
    yield labels
    remove_labeled_set("blocks")


def load_blocks(labels, mask_folder=None):
    """Detectron2's loader; the image is the label in the first channel."""

    def read(record):
        index = [r["file_name"] for r in DatasetCatalog.get("blocks")].index(record["file_name"])
        label = np.where(labels[index] == 255, 0, labels[index])
        image = torch.from_numpy(label).expand(3, 64, 64)
        return {"file_name": record["file_name"], "image": image, "height": 64, "width": 64}

    mapper = MaskRegionsMapper(
        read, num_classes=C, ignore_label=255, mask_resolution=(32, 32), mask_folder=mask_folder
    )
    return build_detection_test_loader(DatasetCatalog.get("blocks"), mapper=mapper)


def with_label_encoder(model, classifier):
    model.pixel_mean.zero_()
    model.pixel_std.fill_(1)
    model.image_encoder = SeesLabels(classifier)
    return model


def test_perfect_features_classify_all_masks(model, blocks, tmp_path):
    model = with_label_encoder(model, torch.eye(C))
    model.text_classifier._features = torch.eye(C)
    evaluator = build_evaluator("blocks", str(tmp_path / "output"), "mask_classification")
    results = inference_on_dataset(MaskClassifier(model, False), load_blocks(blocks), evaluator)
    assert results["mask_classification"]["accuracy"] == 100
    assert results["mask_classification"]["mean_class_accuracy"] == 100
    assert results["sem_seg"]["mIoU"] == 100
    present = [len(set(label.flatten().tolist()) - {255}) for label in blocks]
    assert results["mask_classification"]["num_masks"] == sum(present)


def test_confused_features_confuse_just_these_classes(model, blocks, tmp_path):
    swapped = torch.eye(C)[[1, 0, 2, 3, 4]]
    model = with_label_encoder(model, swapped)
    model.text_classifier._features = torch.eye(C)
    evaluator = build_evaluator("blocks", str(tmp_path / "output"), "mask_classification")
    results = inference_on_dataset(MaskClassifier(model, False), load_blocks(blocks), evaluator)
    metrics = results["mask_classification"]
    present = [value for label in blocks for value in np.unique(label[label != 255])]
    wrong = sum(value in (0, 1) for value in present)
    assert 0 < wrong < len(present)
    assert metrics["accuracy"] == pytest.approx(100 * (1 - wrong / len(present)))
    for index, name in enumerate(CLASS_NAMES):
        expected = (0.0 if index in (0, 1) else 100.0) if index in present else float("nan")
        assert metrics[f"ACC-{name}"] == pytest.approx(expected, nan_ok=True)
    classes = set(present)
    expected = 100 * len(classes - {0, 1}) / len(classes)
    assert metrics["mean_class_accuracy"] == pytest.approx(expected)


class Nothing:
    """An evaluator of painted maps that looks at nothing."""

    def reset(self): ...

    def process(self, inputs, outputs): ...

    def evaluate(self): ...


def test_accuracy_equals_a_count_mask_by_mask(blocks):
    generator = torch.Generator().manual_seed(0)
    evaluator = MaskClassificationEvaluator("blocks", Nothing())
    evaluator.reset()
    correct = []
    for count in (5, 0, 7, 3):
        classes = torch.randint(0, C + 1, (count,), generator=generator)
        similarity = torch.rand(count, C, generator=generator)
        evaluator.process([{"classes": classes}], [{"mask_similarity": similarity}])
        for true, row in zip(classes.tolist(), similarity, strict=True):
            if true < C:
                correct.append((true, int(row.argmax()) == true))
    metrics = evaluator.evaluate()["mask_classification"]
    assert metrics["accuracy"] == pytest.approx(100 * np.mean([c for _, c in correct]))
    assert metrics["num_masks"] == len(correct)
    per_class = [
        np.mean([c for true, c in correct if true == index]) for index in {t for t, _ in correct}
    ]
    assert metrics["mean_class_accuracy"] == pytest.approx(100 * np.mean(per_class))


def test_without_masks_there_is_no_accuracy(blocks):
    evaluator = MaskClassificationEvaluator("blocks", Nothing())
    metrics = evaluator.evaluate()["mask_classification"]
    assert np.isnan(metrics["accuracy"])
    assert np.isnan(metrics["mean_class_accuracy"])
    assert metrics["num_masks"] == 0
