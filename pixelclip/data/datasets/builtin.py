"""Registration of every data set of the project with Detectron2."""

from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.ade20k_150 import ADE20K_150
from pixelclip.data.datasets.pascal_voc_20 import PASCAL_VOC_20
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark
from pixelclip.data.sa1b import register_sa1b

BENCHMARKS = (ADE20K_150, PASCAL_VOC_20)


def register_all() -> None:
    """Register the training set and the benchmarks; what is registered already stays as it is."""
    if "sa1b_train" not in DatasetCatalog:
        register_sa1b()
    for benchmark in BENCHMARKS:
        register_sem_seg_benchmark(benchmark)
