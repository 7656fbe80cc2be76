"""A GPU on paper: counts on the CPU what would make the host wait for a GPU.

Tensors of this GPU say that they are on CUDA and hold their values on the CPU, so that a training
step runs with its backward pass and its optimizer, with the CPU's results. (FakeTensor has no
values and, without a driver, no backward pass.) The host would wait for

* values that it asks for: ``.item()``, ``bool(tensor)``, ``.tolist()``, ``.cpu()``;
* results whose size depends on values: ``nonzero``, indexing with booleans, ``bincount``,
  ``repeat_interleave`` without ``output_size``;
* blocking copies to the GPU, and copies from memory that is not pinned.
"""

import sys
from collections import Counter
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
aten = torch.ops.aten

_WAITING = {
    aten._local_scalar_dense.default: "item",
    aten.equal.default: "equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.bincount.default: "bincount",
    aten._unique2.default: "unique",
}
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class GPUTensor(Tensor):
    """A tensor of the GPU, whose values are in ``values``."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, values: Tensor) -> "GPUTensor":
        # torch takes it for one without memory: autograd asks the driver for a device named CUDA.
        strides, offset, dtype = values.stride(), values.storage_offset(), values.dtype
        tensor = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=strides, storage_offset=offset, dtype=dtype, device="meta"
        )
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def tolist(self):
        return self.cpu().tolist()  # torch refuses it for subclasses


class Synchronizations(TorchDispatchMode):
    """Within it there is the GPU, and ``places`` counts "file:function: operation" that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()
        self._pinned: list[Tensor] = []
        self._patches = [
            mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
            mock.patch.object(torch, "tensor", _make_tensor),
            mock.patch.object(Tensor, "pin_memory", lambda tensor: self._pin(tensor)),
        ]

    def __enter__(self) -> "Synchronizations":
        for patch in self._patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        for patch in self._patches:
            patch.stop()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operation = self._what_waits(function, args, kwargs or {})
        if operation is not None:
            self.places[f"{_place()}: {operation}"] += 1
        return _compute(function, args, kwargs or {})

    def _what_waits(self, function, args, kwargs):
        if function in (aten._to_copy.default, aten.copy_.default):
            *target, source = args[:2] if function is aten.copy_.default else args[:1]
            goes_to_gpu = _is_of_gpu(target, kwargs) if target else _is_of_gpu(source, kwargs)
            if isinstance(source, GPUTensor):
                return None if goes_to_gpu else "copy to the host"
            is_free = kwargs.get("non_blocking", False) and self._is_pinned(source)
            return "copy from the host" if goes_to_gpu and not is_free else None
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if not any(isinstance(one, GPUTensor) for one in tensors):
            return None
        hosts = [one for one in tensors if not isinstance(one, GPUTensor) and one.ndim]
        assert not hosts, f"{function} takes tensors of the GPU and of the host"
        if function in _INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            return "indexing with booleans"
        if function is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
            return "repeat_interleave"
        return _WAITING.get(function)

    def _pin(self, tensor: Tensor) -> Tensor:
        if not self._is_pinned(tensor):
            tensor = tensor.clone()
            self._pinned.append(tensor)
        return tensor

    def _is_pinned(self, tensor: Tensor) -> bool:
        memory = tensor.untyped_storage().data_ptr()
        return any(memory == one.untyped_storage().data_ptr() for one in self._pinned)


def _place() -> str:
    """The innermost function of the package that is running."""
    frame = sys._getframe()
    while frame is not None:
        _, inside, file = frame.f_code.co_filename.rpartition("/pixelclip/")
        if inside:
            return f"{file}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _is_of_gpu(arguments, kwargs) -> bool:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type != "cpu"
    return any(isinstance(one, GPUTensor) for one in tree_leaves((arguments, kwargs)))


def _compute(function, args, kwargs):
    """What CUDA would return: new tensors of the GPU, or those that were written to."""
    values, options = tree_map(
        lambda one: one.values if isinstance(one, GPUTensor) else one, (args, kwargs)
    )
    if "device" in options:
        options["device"] = "cpu"
    result = function(*values, **options)
    if not _is_of_gpu(args, kwargs):
        return result
    schema = function._schema
    if not any(one.alias_info is not None and one.alias_info.is_write for one in schema.returns):
        return tree_map(lambda one: GPUTensor(one) if isinstance(one, Tensor) else one, result)
    written = [
        kwargs[one.name] if one.name in kwargs else args[place]
        for place, one in enumerate(schema.arguments)
        if one.alias_info is not None and one.alias_info.is_write
    ]
    return written[0] if len(written) == 1 else tuple(written)


_tensor_on_host = torch.tensor


def _make_tensor(data, *, device=None, **options):
    """``torch.tensor``, whose own copy to a device no mode sees."""
    tensor = _tensor_on_host(data, **options)
    return tensor if device is None else tensor.to(device)


def move_to_gpu(model: nn.Module) -> None:
    """Move parameters and buffers; shared ones stay shared."""
    moved: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None and one not in moved:
                moved[one] = nn.Parameter(GPUTensor(one.detach()), one.requires_grad)
            module._parameters[name] = None if one is None else moved[one]
        for name, one in module._buffers.items():
            module._buffers[name] = None if one is None else GPUTensor(one)


def pin_batch(batch: list[dict]) -> list[dict]:
    """As a loader with ``pin_memory`` does, within :class:`Synchronizations`."""
    return [
        {key: one.pin_memory() if isinstance(one, Tensor) else one for key, one in sample.items()}
        for sample in batch
    ]
