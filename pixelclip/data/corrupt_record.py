"""The error for a training record that cannot be used."""

from typing import Literal

BreakKind = Literal["file", "image", "annotations", "masks", "no masks"]


class BrokenRecordError(ValueError):
    """A record of a training set that cannot be turned into a training sample.

    Attributes:
        kind: what is broken, for counting. ``"file"``: bytes that cannot be read; ``"image"``: no
            usable photograph; ``"annotations"``: no SA-1B JSON; ``"masks"``: a run-length code that
            is invalid or belongs to an image of another size; ``"no masks"``: nothing annotated.
    """

    # The keyword has a default because torch's loader rebuilds a worker's error from its text.
    def __init__(self, message: str, kind: BreakKind = "file") -> None:
        super().__init__(message)
        self.kind: BreakKind = kind
