"""Stage-by-stage equality with numbers recorded from the published implementation."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import BitMasks, Instances

from pixelclip import PixelCLIP, add_pixelclip_config
from pixelclip.checkpoint.checkpointer import PixelCLIPCheckpointer, rename_published_weights
from pixelclip.modeling.losses import count_pixels, decoded_mask_loss
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.targets import (
    MaskTargets,
    merge_masks,
    union_of_masks,
)
from pixelclip.modeling.text_classifier import cosine_maps, embed_class_names

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"

pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the golden numbers are not at {GOLDEN}"
)


def golden_config(folder, case):
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "PixelCLIP"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.CLIP.ARCH = str(next(folder.glob("clip_tiny_*.json")))
    cfg.MODEL.CLIP.PRETRAINED = ""
    cfg.MODEL.CLIP.RESOLUTION = case["clip_resolution"]
    cfg.MODEL.CLIP.FINETUNE = case["finetune"]
    cfg.MODEL.PIXELCLIP.NUM_CLUSTERS = case["k"]
    cfg.MODEL.PIXELCLIP.PROMPT_LENGTH = case["prompt_length"]
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = case["mask_resolution"]
    cfg.MODEL.PIXELCLIP.ASSIGNMENT_SCALE = case["assignment_scale"]
    cfg.MODEL.PIXELCLIP.MOMENTUM = case["momentum"]
    cfg.DATASETS.TEST = ()
    return cfg


@pytest.fixture(scope="module", params=["vit", "convnext"])
def golden(request):
    """A golden case: its settings, arrays, a model with its weights, and its training batch."""
    folder = GOLDEN / request.param
    case = json.loads((folder / "case.json").read_text())
    arrays = dict(np.load(folder / "io.npz"))
    model = PixelCLIP(golden_config(folder, case))
    PixelCLIPCheckpointer(model).load(str(folder / "reference_checkpoint.pth"))
    model.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return SimpleNamespace(case=case, arrays=arrays, model=model, weights=weights)


@pytest.fixture
def model(golden):
    golden.model.load_state_dict(golden.weights)
    golden.model.zero_grad()
    return golden.model.train()


def batch_of(arrays, as_instances=False):
    batch = []
    for sample in range(3):
        image = torch.from_numpy(arrays[f"train/{sample}/image"])
        strong = torch.from_numpy(arrays[f"train/{sample}/image_strong"])
        masks = torch.from_numpy(arrays[f"train/{sample}/masks"])
        inputs = {"image": image, "image_strong": strong}
        if as_instances:
            inputs["instances"] = Instances(image.shape[1:], gt_masks=BitMasks(masks))
        else:
            inputs["masks"] = _nearest(masks, 48)
        batch.append(inputs)
    return batch


def _nearest(masks, size):
    rows = (torch.arange(size) * (masks.shape[1] / size)).long()
    columns = (torch.arange(size) * (masks.shape[2] / size)).long()
    return masks[:, rows][:, :, columns]


def assert_close(actual, expected, relative):
    """Largest difference below ``relative`` times the largest expected magnitude."""
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    difference = (actual.detach() - expected).abs().max()
    assert difference <= relative * expected.abs().max(), f"differs by {difference}"


def test_stages_agree(golden, model):
    arrays = golden.arrays
    model.teacher.update(model.image_encoder)
    name = next(n for n in arrays if n.startswith("train/teacher_after_update/"))
    teacher_name = next(iter(rename_published_weights({name.split("/")[-1]: torch.zeros(1)})))
    assert_close(model.state_dict()[teacher_name], arrays[name], 1e-6)

    batch = batch_of(arrays)
    weak = model.preprocess([x["image"] for x in batch])
    strong = model.preprocess([x["image_strong"] for x in batch])
    teacher_features = model.teacher(weak)
    student_features = model.image_encoder(strong)
    assert_close(teacher_features, arrays["train/teacher_features"], 1e-5)
    assert_close(student_features, arrays["train/student_features"], 1e-5)
    clusters = model.class_prompts(model.text_encoder)
    assert_close(clusters, arrays["train/cluster_embeddings"], 1e-5)

    masks, image_index = model.training_masks(batch, model.device)
    scores = model.assignment.logits(pool_masks(teacher_features, masks, image_index), clusters)
    assert_close(scores, arrays["train/assignment_logits"], 1e-5)
    soft = model.assignment.probabilities(scores)
    assert_close(soft, arrays["train/sinkhorn"], 1e-5)
    assignment = soft.argmax(dim=1)
    assert assignment.tolist() == arrays["train/assignment"].tolist()
    targets = merge_masks(masks, image_index, assignment, 3, golden.case["k"])
    assert torch.equal(targets, torch.from_numpy(arrays["train/targets"]).bool())

    maps = cosine_maps(student_features, clusters).flatten(0, 1)
    assert_close(model.mask_decoder(maps[:, None]), arrays["train/decoder_output"], 1e-5)
    image_of_map = torch.arange(3).repeat_interleave(golden.case["k"])
    valid_mask = union_of_masks(masks, image_index, 3)
    pixels = count_pixels(image_of_map, valid_mask)
    targets = MaskTargets(targets.flatten(0, 1), image_of_map, valid_mask)
    loss = decoded_mask_loss(model.mask_decoder, maps, targets, pixels)
    assert loss.item() == pytest.approx(float(arrays["train/loss"]), rel=1e-5)


@pytest.mark.parametrize("as_instances", [False, True])
def test_loss_and_gradients_agree(golden, model, as_instances):
    arrays = golden.arrays
    loss = model(batch_of(arrays, as_instances))["loss_masks"]
    assert loss.item() == pytest.approx(float(arrays["train/loss"]), rel=1e-5)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    recorded = [name for name in arrays if name.startswith("grad/")]
    assert len(recorded) >= 7
    for name in recorded:
        ours = next(iter(rename_published_weights({name[5:]: torch.zeros(1)})))
        assert_close(gradients[ours], arrays[name], 1e-3)


def test_trainable_parameters_agree(golden, model):
    published = {str(n): torch.zeros(1) for n in golden.arrays["train/trainable_names"]}
    ours = {name for name, p in model.named_parameters() if p.requires_grad}
    assert ours == set(rename_published_weights(published))


def test_inference_agrees(golden, model):
    arrays, names = golden.arrays, golden.case["class_names"]
    templates = get_prompt_templates("imagenet_select")
    features = embed_class_names(model.text_encoder, names, templates)
    assert_close(features, arrays["infer/text_features_per_template"], 1e-5)
    model.eval()
    model.set_vocabulary(names)
    height, width = arrays["infer/out_hw"].tolist()
    image = torch.from_numpy(arrays["infer/image"])
    sem_seg = model([{"image": image, "height": height, "width": width}])[0]["sem_seg"]
    expected = torch.from_numpy(arrays["infer/sem_seg"])
    assert (sem_seg[:, ::5, ::5] - expected).abs().max() < 1e-4
    assert np.array_equal(sem_seg.argmax(dim=0).numpy(), arrays["infer/argmax"])
