"""Loading and registering: what is missing is named, and nothing happens before it is asked for."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets.ade20k_150 import ADE20K_150, prepare_ade20k_150
from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    list_files,
    load_sem_seg_benchmark,
    register_sem_seg_benchmark,
)


@pytest.fixture
def benchmark() -> Iterator[SemSegBenchmark]:
    """ADE20K-150 under a name of its own, taken out of the catalogs afterwards."""
    named = dataclasses.replace(ADE20K_150, name="test_sem_seg_benchmark")
    yield named
    DatasetCatalog.pop(named.name, None)
    MetadataCatalog.pop(named.name, None)


def test_the_root_is_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/where")
    assert datasets_root() == Path("/some/where")
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert datasets_root() == Path.home() / "data"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("DETECTRON2_DATASETS")
        else:
            monkeypatch.setenv("DETECTRON2_DATASETS", unset)
        assert datasets_root() == Path("datasets")


def test_files_are_found_in_folders_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    names = ["x_left.PNG", "a/y_left.png", "a/b/z_Left.png", ".hidden/w_left.png", "a/.v_left.png"]
    for name in [*names, "a/y_right.png"]:
        (tmp_path / name).touch()
    found = list_files(tmp_path, ["_Left.png"])
    assert found.keys() == {"x", "a/y", "a/b/z"}
    assert found["a/b/z"] == tmp_path / "a/b/z_Left.png"
    assert list_files(tmp_path / "nowhere", [".png"]) == {}


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.(jpg|png) and a\.(jpg|png) have one name"):
        list_files(tmp_path, [".jpg", ".png"])


def test_a_root_with_blanks_is_quoted_in_the_command(
    benchmark: SemSegBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/my data/{x}")
    command = "pixelclip datasets prepare ade20k_150 --root '/my data/{x}'"
    assert benchmark.prepare_command == command
    assert dataclasses.replace(benchmark, prepare_template=None).prepare_command is None


def test_a_missing_root_is_named(
    benchmark: SemSegBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as caught:
        load_sem_seg_benchmark(benchmark)
    for part in (str(tmp_path / "nowhere"), benchmark.image_folder, "$DETECTRON2_DATASETS"):
        assert part in str(caught.value)


def test_labels_that_are_not_prepared_get_the_command(
    benchmark: SemSegBenchmark, ade_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    command = f"pixelclip datasets prepare ade20k_150 --root {ade_root}"
    with pytest.raises(FileNotFoundError, match=command):
        load_sem_seg_benchmark(benchmark)
    prepare_ade20k_150(ade_root, workers=1)
    (ade_root / benchmark.label_folder / "ADE_val_00000002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 .*ADE_val_00000002\.png.*" + command):
        load_sem_seg_benchmark(benchmark)


def test_an_empty_image_folder_is_refused(
    benchmark: SemSegBenchmark, ade_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    for image in (ade_root / benchmark.image_folder).iterdir():
        image.unlink()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    with pytest.raises(ValueError, match=r"no \.jpg image"):
        load_sem_seg_benchmark(benchmark)


def test_records_are_sorted_pairs_and_hidden_files_do_not_count(
    benchmark: SemSegBenchmark,
    ade_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    (ade_root / benchmark.image_folder / "._ADE_val_00000001.jpg").write_bytes(b"")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    with caplog.at_level(logging.WARNING, logger="pixelclip"):
        records = load_sem_seg_benchmark(benchmark)
    names = [Path(record["file_name"]).stem for record in records]
    assert names == [f"ADE_val_{index:08d}" for index in range(1, 6)]
    assert [Path(record["sem_seg_file_name"]).stem for record in records] == names
    assert all(Path(path).is_file() for record in records for path in record.values())
    assert "5 images" in caplog.text
    assert "official 2000" in caplog.text


def test_the_official_number_of_images_gives_no_warning(
    benchmark: SemSegBenchmark,
    ade_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    with caplog.at_level(logging.WARNING, logger="pixelclip"):
        load_sem_seg_benchmark(dataclasses.replace(benchmark, num_images=(4, 5)))
    assert caplog.text == ""


def test_registration_is_lazy_and_may_be_repeated(
    benchmark: SemSegBenchmark, ade_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root / "nowhere"))
    register_sem_seg_benchmark(benchmark)
    registered = DatasetCatalog[benchmark.name], MetadataCatalog[benchmark.name]
    register_sem_seg_benchmark(benchmark)
    assert (DatasetCatalog[benchmark.name], MetadataCatalog[benchmark.name]) == registered
    # the root is read when the data set is asked for, not when it was registered
    prepare_ade20k_150(ade_root, workers=1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    assert len(DatasetCatalog.get(benchmark.name)) == 5


def test_a_name_that_is_taken_is_not_replaced(benchmark: SemSegBenchmark) -> None:
    DatasetCatalog.register(benchmark.name, lambda: [{"file_name": "mine"}])
    MetadataCatalog.get(benchmark.name).set(stuff_classes=["mine"])
    register_sem_seg_benchmark(benchmark)
    assert DatasetCatalog.get(benchmark.name) == [{"file_name": "mine"}]
    assert MetadataCatalog.get(benchmark.name).stuff_classes == ["mine"]
