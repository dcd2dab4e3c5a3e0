"""PyTorch networks as OpenVINO graphs."""

from __future__ import annotations

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from lsfd.errors import LsfdError
from lsfd.inference.integer_layers import has_integers
from lsfd.inference.openvino_graph import compiled_graph, infer
from lsfd.inference.quiet import quiet, root_cause
from lsfd.inference.signal_stack import signal_stack_kept
from lsfd.networks.opaque import OpaqueNetwork
from lsfd.networks.trial import evaluating, size_multiple, trial_input

LARGEST_DIFFERENCE = 0.01 / 255
"""By which the graph's output may differ from the network's."""

_TRIED = ((25, 48), (73, 50))
"""Height and width of the inputs that are compared.

The graph is traced at another size, so that what a network decides by its input's size shows.
"""


def torch_graph(network: nn.Module) -> openvino.Model:
    """Return a network as a graph that takes images of any size, and has been tried.

    Args:
        network: from N x 3 x h x w to N x 3 x sh x sw, RGB in 0..1; on the CPU.

    Raises:
        LsfdError: it cannot be converted, or the graph computes something else.
    """
    name = type(network).__name__
    if isinstance(network, OpaqueNetwork):
        raise LsfdError(f"{name}: an exported network runs as it was exported")
    if has_integers(network):
        raise LsfdError(f"{name} is quantised; export it to run in integers")
    if size_multiple(network) > 1:  # Its input is filled up, which bytes are not.
        raise LsfdError(f"{name} has attention windows, which are left to PyTorch")
    try:
        with quiet(), evaluating(network), signal_stack_kept():
            traced = torch.jit.trace(network, trial_input(network), check_trace=False)
            # Not openvino.convert_model, which tells its makers that it was used.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # Has to live until all is converted.
            graph = frontend.convert(frontend.load(decoder))
            graph.reshape([1, 3, -1, -1])
            difference = _difference(network, graph)
    except Exception as error:  # A foreign network's forward may be beyond it in any way.
        raise LsfdError(f"{name} cannot be run by OpenVINO: {root_cause(error)}") from error
    if not difference <= LARGEST_DIFFERENCE:
        raise LsfdError(
            f"{name} cannot be run by OpenVINO: results differ by {255 * difference:.3g} of 255 "
            "grey levels"
        )
    return graph


def _difference(network: nn.Module, graph: openvino.Model) -> float:
    """Return by how much a graph's results differ from a network's."""
    request = compiled_graph(graph, "f32").create_infer_request()
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for height, width in _TRIED:
        lq = torch.rand(1, 3, height, width, generator=generator)
        result = torch.from_numpy(infer(request, lq.numpy())[0])
        largest = max(largest, float((network(lq) - result).abs().max()))
    return largest
