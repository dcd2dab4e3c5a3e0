"""OpenVINO graphs on the CPU: compiling, running, and what they need."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from lsfd.inference.memory import is_scarce
from lsfd.inference.signal_stack import signal_stack_kept

_SIDE = 24
"""Of the image that the need for memory is computed for."""

_BESIDE = 1.25
"""How many times what its largest layer reads and writes a graph needs; EDSR takes 1.05 times."""

_OUTPUTS = 3
"""How many copies of its output come and go on the way to pixels."""

_KERNELS_KEPT = 1000
"""A graph of hundreds of layers at one size. OpenVINO's own choice is five times as many: by then
images of many sizes have taken 200 MB."""


def compiled_graph(
    graph: openvino.Model, number_format: str, streams: int = 1
) -> openvino.CompiledModel:
    """Compile a graph for the CPU.

    Args:
        graph: what is compiled.
        number_format: ``f32`` or ``bf16``.
        streams: how many inputs are computed at a time, each by its share of the cores.

    Raises:
        RuntimeError: OpenVINO cannot run it.
    """
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads(),
        "INFERENCE_PRECISION_HINT": number_format,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # Two processes would take the same cores.
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
    }
    with signal_stack_kept():
        return core().compile_model(graph, "CPU", settings)


def infer(request: openvino.InferRequest, given: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the outputs for an input; they are overwritten by the request's next ones.

    Raises:
        MemoryError: it does not suffice.
        RuntimeError: OpenVINO cannot compute it.
    """
    try:
        with signal_stack_kept():
            # Not request.infer: in OpenVINO 2026.4 that says nothing when memory runs out, and
            # gives an earlier input's result.
            request.start_async([given])
            request.wait()
    except RuntimeError as error:  # OpenVINO has no classes of errors.
        if is_scarce(error) or "alloc" in str(error).lower():
            raise MemoryError(" ".join(str(error).split())[-200:]) from error
        raise
    return [tensor.data for tensor in request.output_tensors]


def footprint(graph: openvino.Model, number_format: str) -> int:
    """Return an estimate of the bytes that a graph takes for each pixel of its input."""
    sized = graph.clone()
    sized.reshape([1, 3, _SIDE, _SIDE])
    largest = max(map(_elements, sized.get_ops()))
    output = int(np.prod(sized.output(0).shape))
    width = 2 if number_format == "bf16" else 4
    return max(1, int(_BESIDE * width * largest + 4 * _OUTPUTS * output) // _SIDE**2)


def computes_bf16() -> bool:
    """Whether the processor has instructions for bf16."""
    with signal_stack_kept():
        chosen = core().get_property("CPU", "INFERENCE_PRECISION_HINT")  # If it is not told.
    return bool(chosen == openvino.Type.bf16)


def threads() -> int:
    """Return how many threads compute: as many as PyTorch would take."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def core() -> openvino.Core:
    """Return the one core: a second one would load its plugins again."""
    return openvino.Core()


def _elements(operation: Any) -> int:
    """Return how many numbers an operation reads and writes, constants aside."""
    sources = [each.get_source_output() for each in operation.inputs()]
    values = [*sources, *operation.outputs()]
    return sum(
        int(np.prod(value.get_shape()))
        for value in values
        if value.get_node().get_type_name() != "Constant"
    )
