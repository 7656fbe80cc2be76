"""The two file formats: writing them, and running them as their users do."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pixelclip.export.graphs import Graph
from pixelclip.utils.installation import import_optional

_METADATA_FILE = "metadata.json"


class ExportedModel(NamedTuple):
    """A file that runs without PixelCLIP.

    Attributes:
        run: gives the output, float32, for named inputs on the CPU.
        metadata: what was written with it.
    """

    run: Callable[[Mapping[str, Tensor]], Tensor]
    metadata: dict[str, Any]


class ExportFormat(NamedTuple):
    """How a graph becomes a file, and the file a model again.

    Attributes:
        write: writes a graph and its metadata into a file that is open for writing; raises an
            ImportError that says what to install where a package is missing or too old.
        read: loads a file, of any name, as its user would.
    """

    write: Callable[[Graph, Mapping[str, Any], IO[bytes]], None]
    read: Callable[[str], ExportedModel]


def _write_onnx(graph: Graph, metadata: Mapping[str, Any], file: IO[bytes]) -> None:
    _check_onnx_packages()
    onnx_program = torch.onnx.export(
        _trace(graph),
        dynamo=True,
        input_names=list(graph.inputs),
        output_names=[graph.output_name],
        dynamic_shapes=graph.dynamic_dimensions,
        verbose=False,
    )
    assert onnx_program is not None
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    onnx_program.model.metadata_props.update(texts)
    file.write(onnx_program.model_proto.SerializeToString())


def _check_onnx_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        import_optional(package, "export")
    if "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters:
        raise ImportError(
            f"torch {torch.__version__} is too old to export ONNX files; install 2.6 or newer, or "
            "export a .pt2 file."
        )


def _read_onnx(path: str) -> ExportedModel:
    onnxruntime = import_optional("onnxruntime", "export")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return ExportedModel(run, {key: json.loads(text) for key, text in texts.items()})


def _write_torch_export(graph: Graph, metadata: Mapping[str, Any], file: IO[bytes]) -> None:
    torch.export.save(_trace(graph), file, extra_files={_METADATA_FILE: json.dumps(metadata)})


def _read_torch_export(path: str) -> ExportedModel:
    extra_files = {_METADATA_FILE: ""}
    # Opened here, as torch takes no path with another suffix, which temporary files have.
    with open(path, "rb") as file:
        program = torch.export.load(file, extra_files=extra_files)
    module = program.module()
    run = torch.no_grad()(lambda inputs: module(*inputs.values()))
    return ExportedModel(run, json.loads(extra_files[_METADATA_FILE]))


def _trace(graph: Graph) -> ExportedProgram:
    """Trace a graph with torch.export; batch and image size stay open."""
    dynamic_shapes = {
        name: {index: Dim(axis, min=1) for index, axis in dimensions.items()}
        for name, dimensions in graph.dynamic_dimensions.items()
    }
    with torch.no_grad():
        return torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=dynamic_shapes
        )


FORMATS = {
    ".onnx": ExportFormat(_write_onnx, _read_onnx),
    ".pt2": ExportFormat(_write_torch_export, _read_torch_export),
}
