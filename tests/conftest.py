"""Tiny CLIP models and configs, made without downloads."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import HealthCheck, settings
from PIL import Image

from pixelclip import PixelCLIP, add_pixelclip_config

# The same examples on each machine, however slow or busy it is.
settings.register_profile(
    "pixelclip",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pixelclip")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # else each worker takes all cores

# Searched for doctests otherwise, for which diffusers would be imported, which takes seconds.
collect_ignore = ["documents/tiny_diffusion.py"]

TEXT_CONFIG = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TINY_VIT = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "image_size": 64,
    },
    "text_cfg": TEXT_CONFIG,
}
TINY_CONVNEXT = {
    "embed_dim": 24,
    "vision_cfg": {
        "timm_model_name": "test_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "timm_drop": 0.0,
        "timm_drop_path": 0.1,
        "image_size": 64,
    },
    "text_cfg": TEXT_CONFIG,
}


@pytest.fixture(scope="session")
def tiny_vit_json(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "tiny_vit.json"
    path.write_text(json.dumps(TINY_VIT))
    return str(path)


@pytest.fixture(scope="session")
def tiny_convnext_json(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "tiny_convnext.json"
    path.write_text(json.dumps(TINY_CONVNEXT))
    return str(path)


def make_tiny_config(architecture: str) -> CfgNode:
    """A config of a tiny model on the CPU: 64x64 input, masks of 32x32, 8 clusters."""
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "PixelCLIP"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.CLIP.ARCH = architecture
    cfg.MODEL.CLIP.PRETRAINED = ""
    cfg.MODEL.CLIP.RESOLUTION = (64, 64)
    cfg.MODEL.PIXELCLIP.NUM_CLUSTERS = 8
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = (32, 32)
    cfg.MODEL.PIXELCLIP.TEST_FEATURE_SIZE = (8, 8)
    cfg.DATASETS.TRAIN = ()
    cfg.DATASETS.TEST = ()
    if "convnext" in architecture:
        cfg.MODEL.CLIP.FINETUNE = "full"
        cfg.MODEL.PIXELCLIP.ASSIGNMENT_SCALE = 1.0
    return cfg


@pytest.fixture
def tiny_config(tiny_vit_json: str) -> CfgNode:
    return make_tiny_config(tiny_vit_json)


@pytest.fixture(params=["vit", "convnext"])
def tiny_config_of_each(request: pytest.FixtureRequest) -> CfgNode:
    return make_tiny_config(request.getfixturevalue(f"tiny_{request.param}_json"))


@pytest.fixture
def tiny_model(tiny_config: CfgNode) -> PixelCLIP:
    torch.manual_seed(0)
    return PixelCLIP(tiny_config)


def remove_stochastic_depth(model: PixelCLIP) -> None:
    """Let a ConvNeXt compute the same each time, in training too."""
    model.image_encoder.eval()
    model.teacher.eval()


@pytest.fixture
def shared_folder() -> Path:
    """Real data next to the repository, where a developer has it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the real data of {folder.name}, next to the repository")
    return folder


def make_batch(num_images: int = 2, masks_per_image: int = 4, seed: int = 0) -> list[dict]:
    """Random training inputs for the tiny model: blob-like masks at mask resolution."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for _ in range(num_images):
        image = torch.randint(0, 256, (3, 80, 96), generator=generator, dtype=torch.uint8)
        corners = torch.randint(0, 16, (masks_per_image, 2), generator=generator)
        masks = torch.zeros(masks_per_image, 32, 32, dtype=torch.bool)
        for mask, (row, column) in zip(masks, corners.tolist(), strict=True):
            mask[row : row + 12, column : column + 10] = True
        batch.append({"image": image, "image_strong": image.flip(0), "masks": masks})
    return batch


def write_images(folder: Path, count: int = 6, seed: int = 0) -> None:
    """Small images of rectangles, with the rectangles as masks, in SA-1B's layout."""
    folder.mkdir(parents=True)
    generator = np.random.RandomState(seed)
    for index in range(count):
        image = np.full((60, 80, 3), generator.randint(0, 256, 3), np.uint8)
        annotations = []
        for _ in range(5):
            top, left = generator.randint(0, 40, 2)
            mask = np.zeros((60, 80), np.uint8, order="F")
            mask[top : top + 20, left : left + 30] = 1
            image[mask == 1] = generator.randint(0, 256, 3)
            code = pycocotools.mask.encode(mask)
            counts = code["counts"].decode()
            annotations.append({"segmentation": {"size": [60, 80], "counts": counts}})
        Image.fromarray(image).save(folder / f"sa_{index}.jpg", quality=95)
        described = {"image": {"height": 60, "width": 80}, "annotations": annotations}
        (folder / f"sa_{index}.json").write_text(json.dumps(described))


def register_test_set(folder: Path, name: str) -> None:
    """Register three small labeled images as a benchmark."""
    folder.mkdir(parents=True)
    generator = np.random.RandomState(1)
    records = []
    for index in range(3):
        record = {key: str(folder / f"{index}{suffix}") for key, suffix in FILES_OF_A_RECORD}
        Image.fromarray(generator.randint(0, 256, (30, 40, 3)).astype(np.uint8)).save(
            record["file_name"]
        )
        Image.fromarray(generator.randint(0, 3, (30, 40)).astype(np.uint8)).save(
            record["sem_seg_file_name"]
        )
        records.append(record)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=["sky", "sea", "sand"], ignore_label=255, evaluator_type="sem_seg"
    )


def unregister_test_set(name: str) -> None:
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


FILES_OF_A_RECORD = (("file_name", ".jpg"), ("sem_seg_file_name", ".png"))


@pytest.fixture
def train_config(
    tiny_config_of_each: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CfgNode]:
    """A config that trains four iterations on six small images and evaluates on three."""
    cfg = tiny_config_of_each
    write_images(tmp_path / "images")
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "images"))
    register_test_set(tmp_path / "test_set", "three_images_sem_seg")
    cfg.DATASETS.TRAIN = ("sa1b_train",)
    cfg.DATASETS.TEST = ("three_images_sem_seg",)
    cfg.merge_from_list(SMALL_TRAINING)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    (tmp_path / "output").mkdir()
    yield cfg
    unregister_test_set("three_images_sem_seg")


# Overrides as they would stand on a command line.
SMALL_TRAINING = [
    *("INPUT.MIN_SIZE_TRAIN", "(60,)", "INPUT.CROP.ENABLED", "True"),
    *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(48, 48)"),
    *("INPUT.MIN_SIZE_TEST", "48", "DATALOADER.NUM_WORKERS", "0", "SEED", "7"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", "0"),
    *("SOLVER.BASE_LR", "0.0002", "SOLVER.BASE_LR_END", "0.0001"),
    *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.01"),
    *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
]


class RecordingAssignment:
    """In the place of a model's ``assignment``: keeps the clusters of the masks of each batch.

    With ``given`` clusters, one tensor per batch, these are taken instead of the model's own.
    """

    def __init__(self, model, given=None):
        self._assignment = model.assignment
        self.has_clusters, self.logits = model.assignment.has_clusters, model.assignment.logits
        self._given = None if given is None else iter(given)
        self.recorded = []
        model.assignment = self

    def probabilities(self, logits):
        probabilities = self._assignment.probabilities(logits)
        self.recorded.append(probabilities.argmax(dim=1))
        if self._given is None:
            return probabilities
        return torch.nn.functional.one_hot(next(self._given), logits.shape[1]).float()


@pytest.fixture
def one_thread():
    """With several threads, sums have another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
