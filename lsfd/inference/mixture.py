"""The mixture of objectives that a person asks for on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lsfd.errors import LsfdError
from lsfd.networks.gated_edsr import GatedEDSR

EXAMPLE = "fidelity=0.7,perceptual=0.3"


def parse_mixture(text: str) -> dict[str, float]:
    """Return the share of each objective that a text such as ``EXAMPLE`` names.

    Raises:
        LsfdError: a part is no ``NAME=NUMBER``, or a name comes twice.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            raise LsfdError(f"mix: '{part}' is no NAME=NUMBER; write {EXAMPLE}") from None
        if name in shares:
            raise LsfdError(f"mix: '{name}' comes twice in '{text}'")
        shares[name] = share
    return shares


def choose_mixture(network: nn.Module, shares: Mapping[str, float]) -> None:
    """Make a network work for a mixture from now on.

    Raises:
        LsfdError: the network has no objectives to choose from, or not these.
    """
    if not isinstance(network, GatedEDSR):
        raise LsfdError(
            f"mix: this network, {type(network).__name__}, was trained for one purpose and has "
            "no mixture to choose; leave the option out, or give a student that SGN trained"
        )
    network.set_mixture(shares)
