import io
import logging
import sys

import pytest
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from pixelclip.utils import console
from pixelclip.utils.console import (
    FILE_ONLY,
    PROGRESS,
    ConsoleHandler,
    has_progress_bar,
    shorten_console_output,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(name, level=logging.INFO, **extra):
    made = logging.LogRecord(name, level, "file.py", 1, "text", None, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("name", "level", "extra", "is_shown"),
    [
        ("pixelclip.engine.run", logging.INFO, {}, True),
        ("detectron2.engine.hooks", logging.INFO, {}, True),
        ("pixelclip.engine.run", logging.INFO, FILE_ONLY, False),
        ("detectron2", logging.INFO, {}, False),  # the environment, the config
        ("detectron2.engine.defaults", logging.INFO, {}, False),  # the model
        ("detectron2.evaluation.testing", logging.INFO, {}, False),
        ("detectron2.evaluation.sem_seg_evaluation", logging.INFO, {}, False),
        ("detectron2.data.build", logging.WARNING, {}, True),
        ("detectron2.engine.train_loop", logging.ERROR, {}, False),
    ],
)
def test_what_is_for_the_console(name, level, extra, is_shown):
    assert ConsoleHandler(io.StringIO()).filter(record(name, level, **extra)) == is_shown


def test_lines_of_progress_stand_where_no_bar_does(monkeypatch):
    line = record("pixelclip.engine.progress_lines", **PROGRESS)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert has_progress_bar()
    assert not ConsoleHandler(Terminal()).filter(line)
    assert ConsoleHandler(io.StringIO()).filter(line), "the output is a file"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not has_progress_bar()
    assert ConsoleHandler(Terminal()).filter(line)


@pytest.fixture
def own_logger(monkeypatch):
    monkeypatch.setattr(console, "_LOGGERS", ("a_test",))
    logger = logging.getLogger("a_test")
    yield logger
    logger.handlers.clear()
    setup_logger.cache_clear()


def test_the_console_is_written_to_once_and_the_file_has_everything(own_logger, tmp_path, capsys):
    for output in ("first", "second"):
        setup_logger(str(tmp_path / output), name="a_test")
        shorten_console_output()
    own_logger.info("a model of many lines")
    own_logger.warning("look here")
    assert capsys.readouterr().out.count("look here") == 1
    assert "look here\n" not in capsys.readouterr().out
    for handler in own_logger.handlers:
        handler.flush()
    for output in ("first", "second"):
        text = (tmp_path / output / "log.txt").read_text()
        assert "a model of many lines" in text and "look here" in text


def test_a_line_does_not_cut_through_a_bar(monkeypatch, capsys):
    handler = ConsoleHandler(sys.stdout)
    with tqdm(total=2, file=sys.stderr, mininterval=0) as bar:
        bar.update()
        handler.emit(record("pixelclip"))
    written = capsys.readouterr()
    assert written.out == "text\n"
    assert written.err.count("1/2") >= 2, "drawn again below the line"
