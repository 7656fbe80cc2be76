"""Small labeled data sets and a stand-in model, for tests of the evaluation."""

from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torch import nn

CLASS_NAMES = ["sky", "sea", "sand", "ship", "seal"]
# In 0..4; "ship" occurs in no label.
OCCURRING = (0, 1, 2, 4)


def write_labeled_image(folder: Path, stem: str, label: np.ndarray) -> dict[str, str]:
    """Write a random image and its label map; return the record."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "file_name": str(folder / f"{stem}.jpg"),
        "sem_seg_file_name": str(folder / f"{stem}.png"),
    }
    pixels = np.random.default_rng(len(stem)).integers(0, 256, (*label.shape, 3), np.uint8)
    Image.fromarray(pixels).save(record["file_name"])
    Image.fromarray(label).save(record["sem_seg_file_name"])
    return record


def make_labels(seed: int, num_images: int = 3) -> list[np.ndarray]:
    """Label maps of different sizes with void pixels and without one of the classes."""
    generator = np.random.default_rng(seed)
    labels = []
    for index in range(num_images):
        size = (20 + 4 * index, 36 - 2 * index)
        label = generator.choice(OCCURRING, size).astype(np.uint8)
        label[:3] = 255
        labels.append(label)
    return labels


def register_labeled_set(folder: Path, name: str, labels: list[np.ndarray]) -> None:
    """Register label maps, with random images, as a data set of five classes."""
    records = [write_labeled_image(folder, f"{name}_{i}", label) for i, label in enumerate(labels)]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=CLASS_NAMES, ignore_label=255, evaluator_type="sem_seg"
    )


def remove_labeled_set(name: str) -> None:
    """Undo a registration; the metadata only exist where somebody asked for them."""
    DatasetCatalog.remove(name)
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)


class RandomSegmenter(nn.Module):
    """Random scores that only depend on the image's name; "seal" is never predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.vocabularies: list[list[str]] = []
        self.seen: list[str] = []

    def set_vocabulary(self, class_names, background_index=None):
        self.vocabularies.append(list(class_names))

    def forward(self, batched_inputs):
        outputs = []
        for inputs in batched_inputs:
            self.seen.append(Path(inputs["file_name"]).stem)
            seed = sum(self.seen[-1].encode())
            size = (len(CLASS_NAMES), inputs["height"], inputs["width"])
            scores = torch.rand(size, generator=torch.Generator().manual_seed(seed))
            scores[4] = -1
            outputs.append({"sem_seg": scores})
        return outputs


def predict(name: str, label: np.ndarray) -> np.ndarray:
    """What :class:`RandomSegmenter` predicts for an image."""
    height, width = label.shape
    inputs = {"file_name": f"{name}.jpg", "height": height, "width": width}
    return RandomSegmenter()([inputs])[0]["sem_seg"].argmax(dim=0).numpy()


def metrics_in_numpy(labels, predictions) -> dict[str, float]:
    """mIoU, pixel and mean accuracy in percent, from their definitions, class by class."""
    truth = np.concatenate([label.reshape(-1) for label in labels])
    prediction = np.concatenate([p.reshape(-1) for p in predictions])[truth != 255]
    truth = truth[truth != 255]
    ious, accuracies = [], []
    for index in range(len(CLASS_NAMES)):
        is_true, is_predicted = truth == index, prediction == index
        if (is_true | is_predicted).any():
            ious.append((is_true & is_predicted).sum() / (is_true | is_predicted).sum())
        if is_true.any():
            accuracies.append((is_true & is_predicted).sum() / is_true.sum())
    return {
        "mIoU": 100 * np.mean(ious),
        "pixel accuracy": 100 * np.mean(truth == prediction),
        "mean accuracy": 100 * np.mean(accuracies),
    }
