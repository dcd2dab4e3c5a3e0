"""The option file as typed objects; it keeps the shape of BasicSR's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lsfd.config.base import (
    WHOLE,
    Component,
    Count,
    FolderName,
    Natural,
    Section,
    Seed,
    Text,
    Texts,
    listed,
)
from lsfd.config.compression import Compress
from lsfd.config.datasets import Datasets
from lsfd.config.training import Train

AUTO_TYPE = "auto"
"""A teacher of this type takes its architecture from its checkpoint."""


def _no_wandb(value: Any) -> Any:
    if isinstance(value, dict) and value.get("project") is None:
        return None  # BasicSR's option files say so that they do not use it.
    if value is not None:
        raise ValueError("Weights & Biases is not supported; use TensorBoard, or null")
    return value


class TapPair(Section):
    """A feature of the student and the teacher's feature that it learns from."""

    student: Text
    """Name of the tap in the student."""
    teacher: Text
    """Name of the tap in the teacher."""


class DistillerOptions(Component):
    """A distillation method; its further keys are the method's own options."""

    type: Text
    """Name of the method."""
    taps: Literal["auto"] | list[Text | TapPair] = "auto"
    """Where features are compared; auto: at matching stages of student and teacher."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Factor of all terms of the method."""
    start: Count = 1
    """First iteration in which the method takes part."""
    end: Count | None = None
    """Last iteration in which it does; null: to the end."""


Networks = Annotated[
    list[Component],
    BeforeValidator(listed, json_schema_input_type=Component | list[Component] | None),
]
Distillers = Annotated[
    list[DistillerOptions],
    BeforeValidator(
        lambda value: [] if value is None else value,
        json_schema_input_type=list[DistillerOptions] | None,
    ),
]


class Paths(Section):
    """Where runs are written and what they start from."""

    experiments_root: Text = "experiments"
    """Folder under which the run gets the folder <name>."""
    pretrain_network_g: Text | None = None
    """Checkpoint that the student starts from, or a ready student's name; null: random weights."""
    param_key_g: Text | None = None
    """Key of the weights inside that checkpoint; null: found by itself."""
    strict_load_g: bool = True
    """Whether every key of that checkpoint has to fit; false: what does not begins anew."""
    pretrain_network_t: Texts = Field(default=[])
    """The teacher's checkpoint or a ready student's name; with several teachers a list."""
    teacher_cache: Text | None = None
    """Folder where teachers' results are kept for other runs; null: computed anew each time."""
    resume_state: Text | None = None
    """Training state to resume from; null: start anew."""


class Metric(Section):
    """A score of the validation images."""

    type: Literal["calculate_psnr", "calculate_ssim"]
    """BasicSR's name of the metric."""
    crop_border: Natural | None = None
    """Pixels left out at each border; null: scale, as in the papers."""
    test_y_channel: bool = True
    """Whether luma (Y of YCbCr) is compared instead of RGB."""
    better: Literal["higher", "lower"] = "higher"
    """Which direction is better."""


class Validation(Section):
    """When and how the student is scored during training."""

    val_freq: Count = 1000
    """Iterations between validations."""
    save_img: bool = False
    """Whether the upscaled images are saved."""
    save_maps: bool = False
    """Whether pictures of where the methods look are saved, of the first image of each set."""
    metrics: Annotated[dict[Text, Metric], Field(min_length=1)] = Field(
        default={"psnr": Metric(type="calculate_psnr")}
    )
    """Scores by name; the first decides which checkpoint is the best."""


class Logger(Section):
    """What a run reports and keeps."""

    print_freq: Count = 100
    """Iterations between log lines."""
    save_checkpoint_freq: Count = 1000
    """Iterations between checkpoints."""
    use_tb_logger: bool = True
    """Whether TensorBoard logs are written."""
    keep_checkpoints: Count = 2
    """How many checkpoints are kept beside the best one."""
    wandb: Annotated[None, BeforeValidator(_no_wandb)] = None
    """Not supported; null."""


class Distributed(Section):
    """How the processes of a distributed run find each other."""

    backend: Literal["nccl", "gloo"] = "nccl"
    """Communication library between GPUs; processes on CPUs talk through gloo in either case."""
    port: Annotated[int, Field(ge=0, le=65535), WHOLE] = 29500
    """Port of the first process."""


class Compare(Section):
    """Runs of `lsfd compare`: every method with every seed."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0, 1, 2])
    """Each takes the place of manual_seed."""
    methods: Annotated[dict[FolderName, Text | dict[str, Any]], Field(min_length=1)]
    """By name: a method's option file, of which distillers and networks count, or changes."""


class Options(Section):
    """An option file."""

    name: FolderName
    """Name of the run and of its folder."""
    model_type: Literal["LSFDModel"] = "LSFDModel"
    """The model class, as registered with BasicSR."""
    scale: Annotated[int, Field(ge=1, le=8), WHOLE]
    """Upscaling factor, 1 to 8."""
    num_gpu: Literal["auto"] | Natural = "auto"
    """Number of GPUs; auto: all there are; 0: CPU."""
    manual_seed: Seed = 0
    """Seed of every random number of the run."""
    datasets: Datasets
    """What to train and validate on."""
    network_g: Component
    """The student: an architecture and its arguments."""
    network_t: Networks = Field(default=[])
    """The teacher or a list of teachers; type auto: architecture read from the checkpoint."""
    network_p: Networks = Field(default=[])
    """A network or a list of networks trained together with the student (peers)."""
    distillers: Distillers = Field(default=[])
    """What the student learns from the teachers: a list of distillation methods."""
    path: Paths = Paths()
    """Where runs are written and what they start from."""
    train: Train
    """How the student is trained."""
    val: Validation = Validation()
    """When and how the student is scored during training."""
    logger: Logger = Logger()
    """What a run reports and keeps."""
    dist_params: Distributed = Distributed()
    """How the processes of a distributed run find each other."""
    compare: Compare | None = None
    """Several methods side by side, for `lsfd compare`."""
    compress: Compress | None = None
    """Block-wise compression of the teacher, for `lsfd compress`."""
