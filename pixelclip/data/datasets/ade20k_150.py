"""ADE20K with 150 classes: the validation set of the MIT Scene Parsing Benchmark."""

from functools import partial
from pathlib import Path

from pixelclip.data.datasets.sem_seg_benchmark import IGNORE_LABEL, SemSegBenchmark
from pixelclip.data.label_preparation import (
    PreparationReport,
    convert_label,
    prepare_label_folder,
)

ADE20K_150 = SemSegBenchmark(
    name="ade20k_150_test_sem_seg",
    vocabulary="ade20k_150",
    num_images=(2000,),
    image_folder="ADEChallengeData2016/images/validation",
    label_folder="ADEChallengeData2016/annotations_detectron2/validation",
    prepare_template="pixelclip datasets prepare ade20k_150 --root {root}",
)
PUBLISHED_LABEL_FOLDER = "ADEChallengeData2016/annotations/validation"

# A published label is the class number, counted from 1; 0 is "other".
TRAIN_IDS = {0: IGNORE_LABEL} | {value: value - 1 for value in range(1, 151)}


def prepare_ade20k_150(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of ADE20K-150 with train ids, next to the published ones.

    ``root`` holds ``ADEChallengeData2016``; see :func:`prepare_label_folder` for the rest.
    """
    folders = ADE20K_150.image_folder, PUBLISHED_LABEL_FOLDER, ADE20K_150.label_folder
    convert = partial(convert_label, train_ids=TRAIN_IDS)
    return prepare_label_folder(ADE20K_150.name, folders, convert, root, workers)
