"""ADE20K with 150 classes: the validation set of the MIT Scene Parsing Benchmark."""

from pathlib import Path

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    list_files,
    require_layout,
)
from pixelclip.data.label_preparation import (
    PreparationReport,
    label_tasks,
    make_label_table,
    prepare_labels,
)

ADE20K_150 = SemSegBenchmark(
    name="ade20k_150_test_sem_seg",
    vocabulary="ade20k_150",
    num_images=(2000,),
    image_folder="ADEChallengeData2016/images/validation",
    label_folder="ADEChallengeData2016/annotations_detectron2/validation",
    prepare_template="python datasets/prepare_ade20k_150.py --root {root}",
)
PUBLISHED_LABEL_FOLDER = "ADEChallengeData2016/annotations/validation"

# A published label is the class number, counted from 1; 0 is "other".
TRAIN_IDS = {0: IGNORE_LABEL} | {value: value - 1 for value in range(1, 151)}


def prepare_ade20k_150(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of ADE20K-150 with train ids, next to the published ones.

    Args:
        root: the folder that holds ``ADEChallengeData2016``.
        workers: how many files are worked on at a time, at least 1.

    Returns:
        What was done. An image without a label and a label without an image are problems in it.

    Raises:
        FileNotFoundError: the published layout is not there.
        OSError: a file cannot be written.
    """
    require_layout("ADE20K-150", root, [ADE20K_150.image_folder, PUBLISHED_LABEL_FOLDER])
    images, published = root / ADE20K_150.image_folder, root / PUBLISHED_LABEL_FOLDER
    names = sorted(list_files(images, [".jpg"]).keys() | list_files(published, [".png"]).keys())
    tasks = label_tasks(names, images, published, root / ADE20K_150.label_folder)
    return prepare_labels(tasks, make_label_table(TRAIN_IDS), workers)
