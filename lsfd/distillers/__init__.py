"""Distillation methods: the contract in ``base``, one file for each method.

Every file of this package is imported here, so that a new method needs no list to be edited.
"""

from __future__ import annotations

import importlib
import pkgutil

from lsfd.distillers.base import (
    DISTILLERS,
    DistillationBatch,
    Distiller,
    Network,
    Setting,
    Stage,
    Tap,
    Turn,
    register,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DISTILLERS",
    "DistillationBatch",
    "Distiller",
    "Network",
    "Setting",
    "Stage",
    "Tap",
    "Turn",
    "register",
]
