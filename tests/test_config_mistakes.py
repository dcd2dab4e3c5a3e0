"""Mistakes in option files: each is refused in one sentence that says where and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from option_texts import TEXT, message, without_folder

from lsfd.config import options_from_dict
from lsfd.config.reader import Document
from lsfd.errors import LsfdError

WRONG = {
    "unknown key": (
        "gt_size: 96",
        "gt_sice: 96",
        "line 6, datasets.train.gt_sice: unknown option; did you mean 'gt_size'?",
    ),
    "unknown key far from all": (
        "name: run",
        "name: run\nfrobnicate: 1",
        "line 2, frobnicate: unknown option; valid: compare, compress, datasets,",
    ),
    "BasicSR's key without use": (
        "gt_size: 96",
        "io_backend: {type: disk}",
        "line 6, datasets.train.io_backend: BasicSR's option has no meaning here",
    ),
    "missing": ("total_iter: 5e3", "warmup_iter: -1", "line 22, train.total_iter: is missing"),
    "text for a number": (
        "5e3",
        "'5000'",
        "line 23, train.total_iter: should be a whole number, got '5000'",
    ),
    "fraction for a count": (
        "5e3",
        "2.5",
        "line 23, train.total_iter: should be a whole number, got 2.5",
    ),
    "truth for a count": (
        "5e3",
        "true",
        "line 23, train.total_iter: should be a whole number, got true",
    ),
    "yes is text": (
        "gt_size: 96",
        "use_rot: yes",
        "line 6, datasets.train.use_rot: should be true or false, got 'yes'",
    ),
    "too small": (
        "5e3",
        "0",
        "line 23, train.total_iter: should be greater than or equal to 1, got 0",
    ),
    "not finite": ("2e-4", ".inf", "line 26, train.optim_g.lr: should be a finite number, got inf"),
    "unknown member of a union": (
        "type: Adam",
        "type: Adma",
        "line 25, train.optim_g.type: 'Adma' is not known; did you mean 'Adam'?",
    ),
    "union without its tag": ("    type: Adam\n", "", "line 24, train.optim_g.type: is missing"),
    "key of another member": (
        "betas: [0.9, 0.99]",
        "momentum: 0.9",
        "line 27, train.optim_g.momentum: unknown option; valid:",
    ),
    "too many entries": (
        "[0.9, 0.99]",
        "[0.9, 0.9, 0.9]",
        "line 27, train.optim_g.betas: should be a list of at most 2",
    ),
    "entry of a list": (
        "[a, b]",
        "[a, 3]",
        "line 10, datasets.val_2.dataroot_gt.1: should be text, got 3",
    ),
    "empty list": ("[a, b]", "[]", "line 10, datasets.val_2.dataroot_gt: is empty"),
    "set of another name": (
        "val_2:",
        "test_2:",
        "line 10, datasets.test_2: unknown option; valid: train, val",
    ),
    "unsafe name": (
        "name: run",
        "name: ../run",
        "line 1, name: must be usable as the name of a folder",
    ),
    "section that is none": (
        "network_g: {type: EDSR, num_feat: 32, upscale: 4}",
        "network_g: EDSR",
        "line 11, network_g: should be a mapping, got 'EDSR'",
    ),
    "half a pair of taps": (
        "kernel: 1",
        "taps: [{student: a}]",
        "line 17, distillers.0.taps.0.teacher: is missing",
    ),
    "wandb": (
        "path:",
        "logger: {wandb: {project: x}}\npath:",
        "line 20, logger.wandb: Weights & Biases is not supported",
    ),
    "milestones": (
        "  optim_g:",
        "  scheduler: {type: MultiStepLR, milestones: [3, 3]}\n  optim_g:",
        "line 24, train.scheduler.milestones: must ascend",
    ),
    "patch and scale": (
        "gt_size: 96",
        "gt_size: 98",
        "line 6, datasets.train.gt_size: 98 is not a multiple of scale 4",
    ),
    "student's scale": (
        "num_feat: 32, upscale: 4",
        "num_feat: 32, upscale: 2",
        "line 11, network_g.upscale: 2 differs from scale 4",
    ),
    "teacher's scale": (
        "num_feat: 64, upscale: 4",
        "num_feat: 64, upscale: 3",
        "line 13, network_t.0.upscale: 3 differs from scale 4",
    ),
    "another border than the papers'": (
        "path:",
        "val: {metrics: {psnr: {type: calculate_psnr, crop_border: 2}}}\npath:",
        "line 20, val.metrics.psnr.crop_border: scores shave as many pixels as the scale, 4,",
    ),
    "no metric": (
        "path:",
        "val: {metrics: {}}\npath:",
        "line 20, val.metrics: is empty",
    ),
    "a metric whose name is no number, though it looks like one": (
        "path:",
        "val: {metrics: {²: {type: calculate_psnr, crop_border: 2}}}\npath:",
        "line 20, val.metrics.².crop_border: scores shave as many pixels",
    ),
    "two sets of one name": (
        "name: Set14",
        "name: Set5",
        "line 10, datasets.val_2.name: 'Set5' is the name of datasets.val, too",
    ),
    "a seed that no generator takes": (
        "scale: 4\n",
        "scale: 4\nmanual_seed: 9223372036854775808\n",
        "line 3, manual_seed: ",
    ),
    "teachers and checkpoints": (
        ", second.pth",
        "",
        "line 21, path.pretrain_network_t: 1 checkpoint(s) for 2 teacher(s)",
    ),
    "auto with arguments": (
        "- type: auto",
        "- {type: auto, num_feat: 1}",
        "line 14, network_t.1.num_feat: type auto reads",
    ),
    "teachers without pupils": (
        TEXT[TEXT.index("distillers:") : TEXT.index("path:")],
        "",
        "line 12, network_t: nothing learns from the teacher",
    ),
    "periods too short": (
        "  optim_g:",
        "  scheduler: {type: CosineAnnealingRestartLR, periods: [9]}\n  optim_g:",
        "line 24, train.scheduler.periods: end at 9, before total_iter 5000",
    ),
    "weights of restarts": (
        "  optim_g:",
        "  scheduler: {type: MultiStepRestartLR, milestones: [3], restarts: [5], "
        "restart_weights: [1, 1]}\n  optim_g:",
        "line 24, train.scheduler.restart_weights: 2 weight(s) for 1 start(s)",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), WRONG.values(), ids=WRONG)
def test_mistake_is_named_with_line_and_key(load: Any, old: str, new: str, expected: str) -> None:
    assert TEXT.count(old) == 1
    said = without_folder(message(load, TEXT.replace(old, new)))
    assert said.startswith(f"run.yml, {expected}")


def test_no_loss_at_all_is_refused(load: Any) -> None:
    text = TEXT[: TEXT.index("network_t:")] + TEXT[TEXT.index("train:\n  total") :]
    load(text)
    said = message(load, text + "  pixel_opt: null\n")
    assert "train.pixel_opt: without it and without distillers there is no loss" in said


def test_several_mistakes_make_one_sentence(load: Any) -> None:
    text = TEXT.replace("scale: 4\n", "scale: four\n", 1).replace("5e3", "many")
    text = text.replace("gt_size: 96", "gt_size: x").replace("lr: 2e-4", "lr: fast")
    text = text.replace("name: run", "name: run\nmanual_seed: -1")
    said = without_folder(message(load, text))
    assert said.startswith("run.yml, line 3, scale: should be a whole number, got 'four'")
    assert said.endswith("(and 4 more: manual_seed, datasets.train.gt_size, train.total_iter, ...)")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "train", "val", "x", "student"]), inner)
    ),
    max_leaves=4,
)


@settings(deadline=None)  # The machine may be busy.
@given(st.sampled_from(sorted(Document(TEXT, "text").lines)), VALUES)
def test_any_value_anywhere_is_accepted_or_explained(path: tuple[str, ...], value: Any) -> None:
    data = Document(TEXT, "text").data
    node = data
    for key in path[:-1]:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(path[-1]) if isinstance(node, list) else path[-1]] = value
    try:
        options_from_dict(data)
    except LsfdError as error:
        assert str(error).startswith("<dict>, ")
