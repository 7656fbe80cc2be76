import json
import math

import pytest
from detectron2.data import DatasetCatalog

import pixelclip  # noqa: F401  (registers the data sets)
from pixelclip.evaluation.result_cache import DatasetResult
from pixelclip.evaluation.table import get_published_row, make_rows, to_markdown, write_table
from pixelclip.evaluation.timed_inference import Speed

METRICS = {"mIoU": 12.345, "pACC": 50.0, "mACC": math.nan, "IoU-sky": 3.0}

RESULT = DatasetResult({"sem_seg": METRICS}, 2000, Speed(3.14159, 1995, 8))


def cells_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = [line.strip("|").replace("\\|", "/").split("|") for line in lines]
    return [[cell.strip() for cell in row] for row in rows]


def test_a_row_has_what_was_measured():
    [row] = make_rows(["a"], {"a": RESULT}, {}, {})
    assert row == {
        "data set": "a",
        "mIoU": 12.345,
        "pixel accuracy": 50.0,
        "mean accuracy": None,
        "images per second": 3.14159,
        "images timed": 1995,
        "images": 2000,
        "note": None,
    }


def test_the_table_can_be_read_as_it_is():
    note = "not there: " + "look, " * 100
    rows = make_rows(["a|c", "b"], {"a|c": RESULT}, {"b": note}, {"a|c": 23.6})
    markdown = to_markdown(rows, "ViT")
    head, rule, first, second = cells_of(markdown)
    assert head[:2] == ["data set", "mIoU"]
    assert head[-2:] == ["published mIoU (ViT)", "images"]
    assert set("".join(rule)) <= set("-: |")
    assert first == ["a/c", "12.35", "50.00", "-", "3.14 (1995)", "23.60", "2000"]
    assert second == ["b", *"------"]
    assert f"\n- b: {note}\n" in markdown
    columns = {line.index("mIoU") for line in markdown.splitlines() if "mIoU" in line}
    assert len(columns) == 1
    assert max(len(line) for line in markdown.splitlines() if line.startswith("|")) < 120


def test_no_column_of_nothing():
    headings = make_rows(["a"], {"a": RESULT}, {}, {})[0]
    assert "published mIoU" not in headings
    assert "mask accuracy" not in headings
    assert "note" not in to_markdown(make_rows(["a"], {"a": RESULT}, {}, {}))


def test_mask_accuracy_has_its_columns():
    metrics = {
        "mask_classification": {"accuracy": 40.0, "mean_class_accuracy": 30.0, "num_masks": 7.0},
        "sem_seg": METRICS,
    }
    result = DatasetResult(metrics, 3, Speed(None, 0, 1))
    missing, row = make_rows(["b", "a"], {"a": result}, {"b": "gone"}, {})
    assert (row["mask accuracy"], row["mean mask accuracy of classes"]) == (40.0, 30.0)
    assert list(missing) == list(row)


def test_metrics_of_other_evaluators_are_left_out():
    [row] = make_rows(["a"], {"a": DatasetResult({"other": 3.0}, 1, Speed(None, 0, 1))}, {}, {})
    assert row["mIoU"] is None


def test_both_files_are_written_and_say_the_same(tmp_path):
    rows = make_rows(["a", "b"], {"a": RESULT}, {"b": "gone"}, {"a": 23.6})
    markdown = write_table(rows, str(tmp_path), "ViT", "Dense path: sclip.\n\n")
    assert "Dense path: sclip." in markdown
    assert (tmp_path / "benchmark.md").read_text() == markdown
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content == {"published_row": "ViT", "protocol": "Dense path: sclip.", "rows": rows}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.json", "benchmark.md"]


def test_rows_name_registered_data_sets():
    row = get_published_row("ViT-B/16 SA-1B")
    assert row["voc_2012_test_sem_seg"] == 85.9
    assert len(row) == 5
    assert set(row) <= set(DatasetCatalog.list())


def test_the_empty_name_is_not_a_row():
    assert get_published_row("") == {}


def test_unknown_rows_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'ViT-L'.*ViT-B/16 SA-1B, .*ConvNeXt-B DINO"):
        get_published_row("ViT-L")
