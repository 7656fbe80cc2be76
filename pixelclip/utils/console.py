"""What a training or an evaluation shows on the console; everything else is in log.txt only."""

import logging
import sys

from tqdm import tqdm

# For a record's ``extra``.
FILE_ONLY = {"is_file_only": True}
PROGRESS = {"is_progress": True}

_LOGGERS = ("pixelclip", "detectron2", "fvcore")
# Below a warning, nothing else is shown: models, configs and environments fill pages.
_SHOWN = ("pixelclip", "detectron2.engine.hooks", "fvcore.common.checkpoint")
# It logs the exception that Python, or the command, shows at the end.
_REPEATED = "detectron2.engine.train_loop"


class ConsoleHandler(logging.StreamHandler):
    """Writes the records that are meant for the console, above progress bars."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is meant for the console."""
        if getattr(record, "is_file_only", False) or record.name == _REPEATED:
            return False
        if getattr(record, "is_progress", False) and self.stream.isatty():
            return not has_progress_bar()
        return record.levelno >= logging.WARNING or record.name.startswith(_SHOWN)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


def has_progress_bar() -> bool:
    """Whether progress is a bar, on a terminal, and not lines."""
    return sys.stderr.isatty()


def shorten_console_output() -> None:
    """Replace the console handlers that Detectron2's ``setup_logger`` has added by ours."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        plain = [h for h in logger.handlers if _writes_to_console(h)]
        if plain:
            ours = ConsoleHandler(sys.stdout)
            ours.setFormatter(plain[-1].formatter)
            others = [h for h in logger.handlers if not isinstance(h, ConsoleHandler)]
            logger.handlers = [ours, *(h for h in others if h not in plain)]


def _writes_to_console(handler: logging.Handler) -> bool:
    # Detectron2 also writes files with a plain StreamHandler.
    return type(handler) is logging.StreamHandler and handler.stream is sys.stdout
