"""Exported files as networks: ONNX and OpenVINO models, run on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsfd.errors import LsfdError
from lsfd.inference.description import EXPORT_KEY, from_metadata
from lsfd.inference.onnx import LOOPS, NO_LOOPS, read_onnx
from lsfd.inference.packages import ONNX, OPENVINO, needing
from lsfd.networks.card import METADATA_KEY, StudentCard
from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.seal import check_seal
from lsfd.networks.trial import trial_input

if TYPE_CHECKING:
    import openvino

ONNX_SUFFIX, OPENVINO_SUFFIX, WEIGHTS_SUFFIX = ".onnx", ".xml", ".bin"

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""N x 3 x h x w -> N x 3 x sh x sw."""

_CHANNELS, _COPIES = 64, 4
"""How wide a network is taken for, and how often in memory, where its file says nothing."""

_GREY_ERROR = 0.25
"""By how much grey may change on its way through a network that takes and gives 0..1."""


class RuntimeNetwork(OpaqueNetwork):
    """A file that a runtime computes, as a network: tensors on any device, computed on the CPU."""

    def __init__(
        self,
        run: Run,
        source: str,
        multiple: int = 1,
        reach: int | None = None,
        bytes_per_pixel: int = 1,
    ) -> None:
        """Make a network.

        Args:
            run: computes it.
            source: the file, for messages.
            multiple: and the rest: see :class:`~lsfd.networks.opaque.OpaqueNetwork`.
            reach: see there.
            bytes_per_pixel: see there.
        """
        super().__init__(multiple, reach, bytes_per_pixel)
        self._run, self._source = run, source

    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge RGB images in 0..1: N x 3 x h x w -> N x 3 x sh x sw, float32.

        Raises:
            MemoryError: it does not suffice.
            LsfdError: the runtime cannot compute it.
        """
        images = np.ascontiguousarray(lq.detach().float().cpu().numpy())
        try:
            sr = self._run(images)
        except Exception as error:  # Each runtime has its own.
            if "alloc" in str(error).lower():
                raise MemoryError(_reason(error)) from error
            size = "x".join(map(str, lq.shape))
            raise LsfdError(
                f"{self._source}: fails on an input of {size}: {_reason(error)}"
            ) from error
        return torch.from_numpy(sr).to(lq.device)


def open_onnx(path: Path) -> tuple[RuntimeNetwork, StudentCard]:
    """Return the network of an ONNX file and what the file says about itself.

    Raises:
        LsfdError: ONNX Runtime is not installed or cannot read the file, it needs other files, or
            it is no super-resolution network for RGB images.
    """
    return from_onnx(_read(path), str(path))


def from_onnx(data: bytes, source: str) -> tuple[RuntimeNetwork, StudentCard]:
    """Return the network of an ONNX file's contents; see :func:`open_onnx`.

    Args:
        data: the contents.
        source: what to call them in messages.
    """
    with needing(ONNX):
        import onnxruntime
    try:
        check_seal(data)
        metadata = {entry.key: entry.value for entry in read_onnx(data).metadata_props}
    except LsfdError as error:
        raise LsfdError(f"{source}: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # Errors are raised, too.
    options.add_session_config_entry("session.load_model_format", "ONNX")  # What was checked.
    try:
        # Without a second try, which is told on the terminal, and without the file's own settings.
        session = onnxruntime.InferenceSession(
            data,
            options,
            ["CPUExecutionProvider"],
            enable_fallback=0,
            read_config_from_model=0,
        )
    except Exception as error:
        raise LsfdError(f"{source}: is no ONNX file that can be run: {_reason(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [each.type for each in (*inputs, *outputs)] != ["tensor(float)"] * 2:
        raise _no_image_network(source)
    name = inputs[0].name

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(None, {name: images})[0]

    return _network(run, source, metadata)


def open_openvino(path: Path) -> tuple[RuntimeNetwork, StudentCard]:
    """Return the network of an ``.xml`` file and its ``.bin``, and what they say about themselves.

    Raises:
        LsfdError: OpenVINO is not installed or cannot read the files, or they are no
            super-resolution network for RGB images.
    """
    weights = path.with_suffix(WEIGHTS_SUFFIX)
    if not weights.is_file():
        raise LsfdError(f"{path}: its weights, {weights.name}, do not lie beside it")
    return from_openvino(_read(path), _read(weights), str(path))


def from_openvino(xml: bytes, weights: bytes, source: str) -> tuple[RuntimeNetwork, StudentCard]:
    """Return the network of OpenVINO's two files' contents; see :func:`from_onnx`."""
    with needing(OPENVINO):
        import openvino

        from lsfd.inference.openvino_graph import compiled_graph, core, infer
    if not xml.lstrip().startswith(b"<"):  # Of another format OpenVINO might read further files.
        raise LsfdError(f"{source}: is no OpenVINO model that can be run: it is no XML")
    try:
        check_seal(xml, weights)
        model = core().read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8)))
        metadata = {
            key: model.get_rt_info(key).astype(str)
            for key in (METADATA_KEY, EXPORT_KEY)
            if model.has_rt_info(key)
        }
        _check_operations(model)
        # By itself OpenVINO takes bf16 where the processor has it.
        compiled = compiled_graph(model, "f32")
    except LsfdError as error:
        raise LsfdError(f"{source}: {error}") from error
    except Exception as error:
        raise LsfdError(
            f"{source}: is no OpenVINO model that can be run: {_reason(error)}"
        ) from error
    ports = (*compiled.inputs, *compiled.outputs)
    if [port.get_element_type() for port in ports] != [openvino.Type.f32] * 2:
        raise _no_image_network(source)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        # A request of its own for every call: several threads may call.
        return infer(compiled.create_infer_request(), images)[0].copy()

    return _network(run, source, metadata)


def _network(run: Run, source: str, metadata: dict[str, str]) -> tuple[RuntimeNetwork, StudentCard]:
    """Return a network and its card, as described in its file or else found by a trial."""
    try:
        described = from_metadata(metadata)
    except LsfdError as error:
        raise LsfdError(f"{source}: {error}") from error
    if described is None:
        return _foreign(run, source)
    card, note = described
    network = RuntimeNetwork(run, source, note.multiple, note.reach, note.bytes_per_pixel)
    return network.eval(), card


def _foreign(run: Run, source: str) -> tuple[RuntimeNetwork, StudentCard]:
    """Return a network that somebody else exported; its scale is found by a trial."""
    network = RuntimeNetwork(run, source).eval()
    lq = trial_input(network)
    try:
        sr = network(lq)
    except MemoryError as error:
        raise LsfdError(
            f"{source}: the memory does not suffice for an image of {lq.shape[-1]}x{lq.shape[-1]} "
            f"pixels ({error})"
        ) from error
    side = lq.shape[-1]
    scale = sr.shape[-1] // side
    if tuple(sr.shape) != (1, 3, scale * side, scale * side):
        raise _no_image_network(source)
    if not abs(float(sr.mean()) - float(lq.mean())) <= _GREY_ERROR:  # It may be no number.
        raise LsfdError(
            f"{source}: makes {float(sr.mean()):.3g} of grey, {float(lq.mean())}: its range is not "
            "0..1, or it is no super-resolution network"
        )
    network.bytes_per_pixel = _COPIES * 4 * _CHANNELS * scale**2
    return network, StudentCard(architecture={"type": "exported"}, scale=scale)


def _no_image_network(source: str) -> LsfdError:
    return LsfdError(
        f"{source}: is no super-resolution network: that takes N x 3 x h x w in float32 and gives "
        "N x 3 x sh x sw"
    )


def _check_operations(model: openvino.Model) -> None:
    """Refuse what might never end."""
    for operation in model.get_ops():
        if operation.get_type_name() in LOOPS:
            raise LsfdError(NO_LOOPS)
        if operation.get_type_name() == "If":
            for branch in range(2):
                _check_operations(operation.get_function(branch))


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # Nobody may ever write to a pipe.
        raise LsfdError(f"{path} cannot be read: it is no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise LsfdError(f"{path} cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
