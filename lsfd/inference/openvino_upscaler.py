"""Upscaling by OpenVINO on the CPU: about twice as fast as PyTorch, and started in a second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from numpy.typing import DTypeLike, NDArray
from openvino import opset13 as ops

from lsfd.errors import LsfdError
from lsfd.imaging.raster import Raster
from lsfd.inference.memory import cpu_budget
from lsfd.inference.openvino_graph import (
    compiled_graph,
    computes_bf16,
    footprint,
    infer,
    threads,
)
from lsfd.inference.tiled import Progress, TiledUpscaler

if TYPE_CHECKING:
    import torch

    from lsfd.inference.upscaler import Upscaler

MOST_AT_ONCE = 4
"""Images that are enlarged at the same time: more would leave each too little memory."""


class OpenVinoUpscaler(TiledUpscaler):
    """Runs an OpenVINO graph on the CPU, several images at a time if several threads ask.

    8-bit RGB, which almost all images are, goes in and comes out as bytes, and PyTorch is not
    needed. Everything else is left to :class:`~lsfd.inference.upscaler.Upscaler` with the same
    graph.

    Args:
        graph: float32 N x 3 x h x w -> N x 3 x sh x sw, RGB in 0..1.
        scale: the s by which it enlarges.
        sees: returns how many pixels to each side it sees; None: everything.
        precision: ``fp32``; ``bf16``; ``auto``: bf16 where the processor computes in it, but
            float32 for 16-bit images.
        tile: side of a tile in input pixels; None: as large as fits into the memory.
        ensemble: whether to take the mean over the image mirrored and turned in eight ways.

    Raises:
        LsfdError: an impossible tile, or OpenVINO cannot run the graph.
    """

    def __init__(
        self,
        graph: openvino.Model,
        scale: int,
        sees: Callable[[], int | None],
        precision: str = "auto",
        tile: int | None = None,
        ensemble: bool = False,
    ) -> None:
        super().__init__(scale, tile=tile)
        self._graph = graph
        self._network_sees = sees
        self._ensemble = ensemble
        self._type = _number_format(precision)
        self._deep_type = "bf16" if precision == "bf16" else "f32"
        self._compiling = threading.Lock()
        self._turn = threading.Lock()
        self._of_thread = threading.local()

    def expect(self, images: int) -> None:
        """Say how many images are to come: several are enlarged at once, each by fewer cores."""
        self.at_once = max(1, min(images, threads(), MOST_AT_ONCE))

    def enlarge(self, source: Raster, target: Raster, progress: Progress | None = None) -> None:
        """Enlarge a raster; see :meth:`TiledUpscaler.enlarge`. Threads may call at once."""
        plain = source.shape[2] == 3 and source.dtype == target.dtype == np.uint8
        if plain and not self._ensemble:
            super().enlarge(source, target, progress)
        else:
            with self._turn:  # One at a time: each takes all cores and all the memory.
                self._general.enlarge(source, target, progress)

    def planes(self, planes: torch.Tensor) -> torch.Tensor:
        """Return images enlarged, whole; see :meth:`lsfd.inference.upscaler.Upscaler.planes`."""
        return self._general.planes(planes)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        import torch

        return torch.device("cpu")

    @cached_property
    def _general(self) -> Upscaler:
        """What enlarges images of all kinds."""
        from lsfd.inference.runtimes import RuntimeNetwork
        from lsfd.inference.upscaler import Upscaler

        compiled = _compile(self._graph, self._deep_type, 1)

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            return infer(compiled.create_infer_request(), images)[0].copy()

        memory = footprint(self._graph, self._deep_type)
        network = RuntimeNetwork(run, "OpenVINO", 1, self._network_sees(), memory)
        return Upscaler(network, self.scale, "cpu", "fp32", self._tile, ensemble=self._ensemble)

    def _run(
        self, pixels: NDArray[Any], rows: slice, columns: slice, dtype: DTypeLike
    ) -> NDArray[Any]:
        request = self._request()
        request.output_tensors[1].data[...] = np.nan  # So it stays if nothing is computed.
        try:
            results, total = infer(request, pixels[None])
        except RuntimeError as error:
            raise LsfdError(f"OpenVINO fails: {' '.join(str(error).split())[-200:]}") from error
        enlarged = results[0]
        if enlarged.shape != (pixels.shape[0] * self.scale, pixels.shape[1] * self.scale, 3):
            raise MemoryError("OpenVINO gives an earlier result, as it does when memory runs out")
        if not np.isfinite(total):
            raise LsfdError(
                "the network's output holds NaN or infinity: its weights are damaged, or its "
                "values do not fit the number format (use precision 'fp32')"
            )
        return enlarged[rows, columns]

    def _request(self) -> openvino.InferRequest:
        """Return this thread's own request, whose memory is used again."""
        if not hasattr(self._of_thread, "request"):
            with self._compiling:
                compiled = self._compiled
            self._of_thread.request = compiled.create_infer_request()
        request: openvino.InferRequest = self._of_thread.request
        return request

    @cached_property
    def _compiled(self) -> openvino.CompiledModel:
        return _compile(on_pixels(self._graph), self._type, self.at_once)

    def _pixels_at_once(self) -> int:
        return cpu_budget() // self.at_once // self._bytes_per_pixel

    @cached_property
    def _bytes_per_pixel(self) -> int:
        return footprint(self._graph, self._type)

    def _sees(self) -> int | None:
        return self._network_sees()


def _compile(graph: openvino.Model, number_format: str, streams: int) -> openvino.CompiledModel:
    try:
        return compiled_graph(graph, number_format, streams)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise LsfdError(f"OpenVINO cannot run this network: {reason}") from error


def on_pixels(graph: openvino.Model) -> openvino.Model:
    """Return a graph from pixels to pixels: 1 x h x w x 3 -> 1 x sh x sw x 3, uint8.

    Values are rounded half up and clipped. The second output, computed last, is a sum over what
    the network gives: it is not finite where one of the values is not.
    """
    graph = graph.clone()
    pixels = ops.parameter([1, -1, -1, 3], openvino.Type.u8)
    planes = ops.transpose(ops.convert(pixels, "f32"), np.array([0, 3, 1, 2]))
    planes = ops.multiply(planes, np.float32(1 / 255))
    for user in list(graph.input(0).get_target_inputs()):
        user.replace_source_output(planes.output(0))
    enlarged = graph.get_results()[0].input_value(0)
    levels = ops.add(ops.multiply(enlarged, np.float32(255)), np.float32(0.5))
    levels = ops.floor(ops.clamp(levels, 0.0, 255.0))
    result = ops.convert(ops.transpose(levels, np.array([0, 2, 3, 1])), "u8")
    axes = np.array([0, 1, 2, 3])
    corner = ops.slice(result, [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], axes)
    total = ops.add(ops.reduce_sum(enlarged, axes), ops.squeeze(ops.convert(corner, "f32"), axes))
    return openvino.Model([result, total], [pixels], "lsfd")


def _number_format(precision: str) -> str:
    """Return what 8-bit images are computed in."""
    if precision == "auto":
        return "bf16" if computes_bf16() else "f32"
    return "bf16" if precision == "bf16" else "f32"
