"""Networks as ONNX models.

A model takes and gives plain RGB in 0..1: the mean that EDSR and RCAN subtract is inside. It stays
two operations on three channels: at the input it cannot go into the first convolution's bias,
because that convolution pads with zeros, which are the mean colour and not black; at the output
OpenVINO folds it into the last convolution by itself, and ONNX Runtime takes no measurable time
for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.inference.integer_layers import in_integers
from lsfd.inference.packages import ONNX, needing
from lsfd.inference.quiet import quiet, root_cause
from lsfd.networks.trial import trial_input

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "lq", "sr"

LOOPS = ("Loop", "Scan", "TensorIterator")
NO_LOOPS = "has a loop, which might never end; only networks without loops are run"


def onnx_model(network: nn.Module, *, half: bool = False) -> ModelProto:
    """Return a network as an ONNX model for any number of images of any size.

    Its input ``lq`` is N x 3 x h x w, its output ``sr`` N x 3 x sh x sw; float32, RGB in 0..1. A
    quantised network computes in integers.

    Args:
        network: on the CPU; a quantised one has 8 bits.
        half: whether weights and everything between input and output are float16.

    Raises:
        LsfdError: a package is not installed, or the network cannot be exported.
    """
    with needing(ONNX):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    deployed = in_integers(network).eval()
    if half:
        deployed = _InHalf(deployed)
    number, height, width = (torch.export.Dim(name, min=1) for name in "nhw")
    # Two images: the exporter takes a batch of one for a constant.
    images = trial_input(network).float().repeat(2, 1, 1, 1)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                deployed,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: number, 2: height, 3: width},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # A foreign network's forward may be beyond the exporter in any way.
        raise LsfdError(
            f"{type(network).__name__} cannot be exported to ONNX: {root_cause(error)}"
        ) from error
    assert program is not None
    model = program.model_proto
    for part in parts(model):  # The exporter notes where the code lies on this machine.
        for field in ("metadata_props", "doc_string"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    return model


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Make a model say something about itself."""
    from onnx.helper import set_model_props

    set_model_props(model, dict(metadata))


def read_onnx(data: bytes) -> ModelProto:
    """Parse an ONNX file.

    Raises:
        LsfdError: ``onnx`` is not installed, it is no such file, it wants to read other files, or
            it has loops or functions.
    """
    with needing(ONNX):
        import onnx
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # Protobuf has several implementations.
        raise LsfdError(f"is no ONNX file ({root_cause(error)})") from error
    if model.functions:  # A few lines of functions of functions can stand for endless work.
        raise LsfdError("has functions of its own, which are not run; put their nodes in place")
    for part in parts(model):
        if isinstance(part, onnx.TensorProto) and part.data_location == part.EXTERNAL:
            raise LsfdError("keeps weights in other files, which are not read; put them into it")
        if isinstance(part, onnx.NodeProto) and part.op_type in LOOPS:
            raise LsfdError(NO_LOOPS)
    return model


def parts(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if isinstance(value, Sequence) else [value]:
                yield from parts(each)


class _InHalf(nn.Module):
    """A network in float16 between float32 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, lq: Tensor) -> Tensor:
        return self.network(lq.half()).float()
