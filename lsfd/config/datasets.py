"""The ``datasets`` section: what to train on and what to validate on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lsfd.config.base import (
    WHOLE,
    Count,
    FolderName,
    Natural,
    Positive,
    Section,
    Text,
    Texts,
    unknown_key,
)

VALIDATION_PREFIX = "val"

DatasetType = Literal["PackedPatchDataset", "PairedImageDataset"]


class DegradationOptions(Section):
    """What happens to low-resolution images beside the bicubic reduction, at fixed strengths."""

    blur: Positive | None = None
    """Standard deviation of a Gaussian blur before the reduction, in high-resolution pixels."""
    noise: Positive | None = None
    """Standard deviation of Gaussian noise after the reduction, in grey levels (0..255)."""
    jpeg: Annotated[int, Field(ge=1, le=100), WHOLE] | None = None
    """Quality of a JPEG compression at the end, 1 to 100."""


class TrainSet(Section):
    """The training images and how patches are drawn from them."""

    name: Text = "train"
    """Name of the set in logs and in the cache folder."""
    type: DatasetType = "PackedPatchDataset"
    """The memory-mapped store of patches; BasicSR's PairedImageDataset is a synonym."""
    dataroot_gt: Texts = Field(min_length=1)
    """Folder, or list of folders, with the high-resolution images; searched through their trees."""
    dataroot_lq: Texts = Field(default=[])
    """Folder, or list of folders, with the low-resolution images; null: MATLAB-exact bicubic."""
    degradation: DegradationOptions | None = None
    """Blur, noise and JPEG of low-resolution images that are made (dataroot_lq: null)."""
    cache_dir: Text = "datasets/cache"
    """Folder for the packed stores, which are built once and shared by all runs."""
    gt_size: Count = 192
    """Side of a high-resolution patch in pixels; a multiple of scale."""
    use_hflip: bool = True
    """Whether patches are flipped at random."""
    use_rot: bool = True
    """Whether patches are rotated by multiples of 90 degrees at random."""
    skip_small: bool = False
    """Whether images smaller than gt_size are left out instead of stopping the run."""
    num_worker_per_gpu: Natural = 2
    """Loader processes for each GPU (or CPU process); 0 loads in the training process."""
    batch_size_per_gpu: Count = 16
    """Patches in a batch of each GPU (or CPU process)."""


class ValidationSet(Section):
    """Whole images on which the student is scored during training."""

    name: FolderName
    """Name of the set in logs and results."""
    type: DatasetType = "PairedImageDataset"
    """Whole images are read from their files in either case."""
    dataroot_gt: Texts = Field(min_length=1)
    """Folder, or list of folders, with the high-resolution images."""
    dataroot_lq: Texts = Field(default=[])
    """Folder, or list of folders, with the low-resolution images; null: MATLAB-exact bicubic."""
    degradation: DegradationOptions | None = None
    """Blur, noise and JPEG of low-resolution images that are made (dataroot_lq: null)."""


def _close(schema: dict[str, Any]) -> None:
    """Allow further keys in the JSON schema only where they name a validation set."""
    schema["patternProperties"] = {f"^{VALIDATION_PREFIX}": schema["additionalProperties"]}
    schema["additionalProperties"] = False


class Datasets(Section):
    """One training set and any number of validation sets (``val``, ``val_1``, ``val_2`` ...)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_close)
    __pydantic_extra__: dict[str, ValidationSet]

    train: TrainSet
    """What to train on."""

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_set(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key != "train" and not str(key).startswith(VALIDATION_PREFIX):
                raise unknown_key(str(key), ["train", VALIDATION_PREFIX])
        return data

    @property
    def validation(self) -> dict[str, ValidationSet]:
        """The validation sets by their key, in the file's order."""
        return dict(self.__pydantic_extra__)
