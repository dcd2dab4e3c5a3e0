"""The option file of a test, as BasicSR has it: a network, its weights, and sets to score it on."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from lsfd.config.base import WHOLE, Component, FolderName, Natural, Section, Text, unknown_key
from lsfd.config.datasets import VALIDATION_PREFIX, ValidationSet
from lsfd.config.options import Paths, Validation

TEST_PREFIX = "test"


def _findable(template: str) -> str:
    if not re.fullmatch(r"\{\}(x[1-8])?", template):
        raise ValueError(
            "inputs are found under the names of their originals, or those with x<scale> behind "
            f"them; rename the files of '{template}'"
        )
    return template


class IoBackend(Section):
    """Where images are read from."""

    type: Literal["disk"] = "disk"
    """Folders."""


class TestSet(ValidationSet):
    """Whole images on which the network is scored."""

    type: Literal["PairedImageDataset"] = "PairedImageDataset"
    """Whole images are read from their files."""
    io_backend: IoBackend = IoBackend()
    """Where images are read from."""
    filename_tmpl: Annotated[Text, AfterValidator(_findable)] = "{}"
    """Names of the inputs; {} and {}x<scale> are both found without it."""


class TestSets(Section):
    """The sets to score on (``test_1``, ``test_2``, ``val`` ...)."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, TestSet]

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_set(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if not str(key).startswith((TEST_PREFIX, VALIDATION_PREFIX)):
                raise unknown_key(str(key), [TEST_PREFIX, VALIDATION_PREFIX])
        return data

    @property
    def validation(self) -> dict[str, TestSet]:
        """The sets by their key, in the file's order."""
        return dict(self.__pydantic_extra__)


class TestScores(Validation):
    """What is made of the upscaled images; all scores are given whatever ``metrics`` names."""

    suffix: Text | None = None
    """Put behind the names of the saved images."""


class TestOptions(Section):
    """An option file without training."""

    name: FolderName
    """Name of the test and of its folder."""
    model_type: Text = "LSFDModel"
    """Any: a network is scored without its model class."""
    scale: Annotated[int, Field(ge=1, le=8), WHOLE]
    """Upscaling factor, 1 to 8."""
    num_gpu: Literal["auto"] | Natural = "auto"
    """0: CPU; otherwise the GPU if there is one."""
    manual_seed: Natural = 0
    """Without effect: nothing is random."""
    datasets: TestSets
    """What to score on."""
    network_g: Component
    """The network: an architecture and its arguments."""
    path: Paths = Paths()
    """Where its weights are: pretrain_network_g."""
    val: TestScores = TestScores()
    """What is made of the upscaled images."""


def is_test_file(data: dict[str, Any]) -> bool:
    """Return whether an option file says nothing about training."""
    datasets = data.get("datasets")
    return "train" not in data and not (isinstance(datasets, dict) and "train" in datasets)
