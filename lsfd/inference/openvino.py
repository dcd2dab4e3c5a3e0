"""ONNX models as OpenVINO's pair of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lsfd.atomic import scratch_folder
from lsfd.errors import LsfdError
from lsfd.inference.packages import OPENVINO, needing

if TYPE_CHECKING:
    from onnx import ModelProto


def to_openvino(
    model: ModelProto, metadata: Mapping[str, str], *, half: bool = False
) -> tuple[bytes, bytes]:
    """Return the contents of the ``.xml`` and the ``.bin`` file.

    Args:
        model: what is converted.
        metadata: kept at the top of the model's ``rt_info``.
        half: whether weights are float16; what is computed in is up to the device.

    Raises:
        LsfdError: OpenVINO is not installed, or it cannot be converted.
    """
    with needing(OPENVINO):
        import openvino
    try:  # Not openvino.convert_model, which tells its makers that it was used.
        converted = openvino.Core().read_model(model.SerializeToString())
    except Exception as error:
        reason = " ".join(str(error).split())[-200:]
        raise LsfdError(f"OpenVINO cannot convert this network: {reason}") from error
    for key, value in metadata.items():
        converted.set_rt_info(value, key)
    with scratch_folder() as folder:
        xml = folder / "network.xml"
        openvino.save_model(converted, xml, compress_to_fp16=half)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
