"""The two kinds of files: writing them, and running them as their users do."""

import contextlib
import inspect
import io
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pixelclip.export.graphs import Graph
from pixelclip.export.metadata import from_strings, to_strings
from pixelclip.utils.optional_packages import import_optional

_METADATA_FILE = "metadata.json"
# Protobuf, which ONNX files are made of, ends here.
_ONNX_LIMIT = 2**31


class ExportedModel(ABC):
    """A file that runs without PixelCLIP."""

    metadata: dict[str, Any]

    @abstractmethod
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Its output, float32, for inputs on the CPU."""


class ExportFormat(ABC):
    """How a traced program becomes a file, and the file a model again."""

    name: str

    @abstractmethod
    def check_packages(self) -> None:
        """Raise an ImportError that says what to install where a package is missing or too old."""

    @abstractmethod
    def write(
        self, program: ExportedProgram, graph: Graph, metadata: Mapping[str, Any], file: IO[bytes]
    ) -> None:
        """Write a traced program into a file that is open for writing.

        Raises:
            ValueError: it does not fit into such a file.
        """

    @abstractmethod
    def read(self, path: str) -> ExportedModel:
        """Load a file as its user would."""


class ONNXModel(ExportedModel):
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: str) -> None:
        onnxruntime = import_optional("onnxruntime", "export")
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.metadata = from_strings(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(self._session.run(None, arrays)[0])


class ONNXFormat(ExportFormat):
    """ONNX, one file with its weights inside."""

    name = "ONNX"

    def check_packages(self) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            import_optional(package, "export")
        if "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters:
            raise ImportError(
                f"torch {torch.__version__} is too old to export ONNX files; install 2.6 or newer, "
                "or export a .pt2 file."
            )

    def write(
        self, program: ExportedProgram, graph: Graph, metadata: Mapping[str, Any], file: IO[bytes]
    ) -> None:
        size = sum(tensor.nbytes for tensor in program.state_dict.values())
        if size > _ONNX_LIMIT:
            raise ValueError(
                f"The model's parameters have {size / 1e9:.1f} GB, and an ONNX file holds at most "
                f"{_ONNX_LIMIT / 1e9:.1f} GB: export a .pt2 file instead."
            )
        with _without_chatter():
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=[graph.output_name],
                dynamic_shapes=graph.dynamic_dimensions,
                verbose=False,
            )
        assert onnx_program is not None
        onnx_program.model.metadata_props.update(to_strings(metadata))
        file.write(onnx_program.model_proto.SerializeToString())

    def read(self, path: str) -> ONNXModel:
        return ONNXModel(path)


class TorchExportModel(ExportedModel):
    """A program of torch.export."""

    def __init__(self, path: str) -> None:
        extra_files = {_METADATA_FILE: ""}
        # Under a temporary name it has no suffix that torch would know.
        with open(path, "rb") as file, _without_chatter():
            program = torch.export.load(io.BytesIO(file.read()), extra_files=extra_files)
        self._module = program.module()
        self.metadata = json.loads(extra_files[_METADATA_FILE])

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._module(*inputs.values())


class TorchExportFormat(ExportFormat):
    """torch.export's own archive."""

    name = "torch.export"

    def check_packages(self) -> None:
        """It needs nothing but torch."""

    def write(
        self, program: ExportedProgram, graph: Graph, metadata: Mapping[str, Any], file: IO[bytes]
    ) -> None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={_METADATA_FILE: json.dumps(metadata)})
        file.write(buffer.getbuffer())

    def read(self, path: str) -> TorchExportModel:
        return TorchExportModel(path)


_FORMATS: dict[str, ExportFormat] = {".onnx": ONNXFormat(), ".pt2": TorchExportFormat()}


def get_format(path: Path) -> ExportFormat:
    """The format that a file's suffix stands for.

    Raises:
        ValueError: another suffix.
    """
    if path.suffix not in _FORMATS:
        raise ValueError(
            f"The output file {str(path)!r} must end in {' or '.join(_FORMATS)}, for ONNX or "
            "torch.export."
        )
    return _FORMATS[path.suffix]


def trace(graph: Graph) -> ExportedProgram:
    """Trace a graph with torch.export; batch and picture size stay open."""
    dynamic_shapes = {
        name: {index: Dim(axis, min=1) for index, axis in dimensions.items()}
        for name, dimensions in graph.dynamic_dimensions.items()
    }
    with torch.no_grad(), _without_chatter():
        return torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=dynamic_shapes
        )


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Silence what the exporters say about their own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            yield
    finally:
        logger.setLevel(level)
