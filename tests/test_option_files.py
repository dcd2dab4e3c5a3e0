"""The option files that are shipped, and the schema beside them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from lsfd.config import LoadedOptions, Options, check_arguments, load_options
from lsfd.config.reader import read_document
from lsfd.config.schema import json_schema
from lsfd.distillers import DISTILLERS
from lsfd.networks.build import build_network

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "options").rglob("*.yml"))
METHODS = ROOT / "options" / "methods"
MAKE_SCHEMA = runpy.run_path(str(ROOT / "scripts" / "make_schema.py"))


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSFD_DATA", "/data")


def load(file: Path) -> LoadedOptions:
    return load_options(file)


def test_the_files_of_the_issue_are_there() -> None:
    names = {file.stem for file in FILES}
    assert {f"{net}_x{s}_lsfd" for net in ("edsr", "rcan") for s in (2, 3, 4)} <= names
    assert {f"{net}_x{s}_teacher" for net in ("edsr", "rcan") for s in (2, 3, 4)} <= names
    assert "rcan_x4_plain" in names


def test_every_method_has_a_file() -> None:
    named = {file.stem: load(file).options.distillers for file in METHODS.glob("edsr_x4_*.yml")}
    for name in DISTILLERS:
        listed = [distiller.type for distiller in named[f"edsr_x4_{name.lower()}"]]
        assert name in listed


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_is_valid_down_to_the_arguments(file: Path) -> None:
    loaded = load(file)
    assert loaded.options.name == file.stem
    schema = "schema.json" if file.parent == ROOT / "options" else "../schema.json"
    assert file.read_text().startswith(f"# yaml-language-server: $schema={schema}\n")
    build_network(loaded.raw["network_g"])
    for teacher in loaded.options.network_t:
        if teacher.type != "auto":
            build_network({"type": teacher.type, **teacher.arguments})
    for distiller in loaded.options.distillers:
        method = DISTILLERS[distiller.type]
        arguments = check_arguments(method, distiller.arguments, ignore={"setting"})
        assert set(arguments.get("weights", {})) <= set(method.default_weights)


EQUAL = ("scale", "manual_seed", "datasets", "network_g", "train", "val")
NOT_COMPARED = {
    "edsr_x4_fretal": "adapts a student that is trained already, to other images",
    "edsr_x4_sgn": "its student takes a mixture, and has no pixel loss of its own",
}


@pytest.mark.parametrize("file", sorted(METHODS.glob("*.yml")), ids=lambda file: file.stem)
def test_methods_are_compared_at_equal_budget(file: Path) -> None:
    if file.stem in NOT_COMPARED:
        pytest.skip(NOT_COMPARED[file.stem])
    other, lsfd = load(file).options, load(ROOT / "options" / "edsr_x4_lsfd.yml").options
    for section in EQUAL:
        assert getattr(other, section) == getattr(lsfd, section), section


def test_rcan_is_compared_at_equal_budget() -> None:
    plain, lsfd = (load(ROOT / "options" / f"rcan_x4_{m}.yml").options for m in ("plain", "lsfd"))
    for section in EQUAL:
        assert getattr(plain, section) == getattr(lsfd, section), section


@pytest.mark.parametrize("network", ["edsr", "rcan"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_student_is_smaller_than_the_teacher_that_its_file_names(network: str, scale: int) -> None:
    student = load(ROOT / "options" / f"{network}_x{scale}_lsfd.yml")
    teacher = load(ROOT / "options" / f"{network}_x{scale}_teacher.yml")
    assert student.options.network_t == [teacher.options.network_g]
    (checkpoint,) = student.options.path.pretrain_network_t
    ready = f"edsr-m-x{scale}"  # Of the same architecture; nothing has to be trained before.
    assert Path(checkpoint).stem in (ready, teacher.options.name)
    sizes = [
        sum(weights.numel() for weights in build_network(options.raw["network_g"]).parameters())
        for options in (student, teacher)
    ]
    assert sizes[0] < sizes[1] / 3


def test_schema_is_up_to_date() -> None:
    written = (ROOT / "options" / "schema.json").read_text(encoding="utf-8")
    fresh = MAKE_SCHEMA["text"](MAKE_SCHEMA["option_file_schema"]())
    assert written == fresh, "run python scripts/make_schema.py"


def objects(node: Any) -> Any:
    """Yield every mapping of options that a schema describes."""
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def test_schema_describes_every_option_and_closes_every_section() -> None:
    described = list(objects(Options.model_json_schema()))
    assert len(described) > 15
    for section in described:
        assert section["description"]
        for name, option in section["properties"].items():
            # A section's own description is the one that its option points at.
            assert option.get("description") or "$ref" in option, (section["title"], name)
        free = section["title"] in {"Component", "DistillerOptions"}
        assert section.get("additionalProperties") is free


def test_schema_without_methods_and_networks_leaves_them_free() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["DistillerOptions"]["additionalProperties"] is True
    assert definitions["Component"]["additionalProperties"] is True


class TestSchemaJudges:
    """The schema agrees with the program; by an independent validator."""

    @pytest.fixture(scope="class")
    def validator(self) -> Any:
        jsonschema = pytest.importorskip("jsonschema", reason="needs the dev extra jsonschema")
        schema = json.loads((ROOT / "options" / "schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_shipped_file_is_valid(self, validator: Any, file: Path) -> None:
        validator.validate(read_document(file).data)

    @pytest.mark.parametrize(
        "change",
        [
            {"scale": "4"},
            {"frobnicate": 1},
            {"num_gpu": -1},
            {"datasets": {"train": {"dataroot_gt": "a", "gt_sice": 3}}},
            {
                "datasets": {
                    "train": {"dataroot_gt": "a"},
                    "test": {"name": "a", "dataroot_gt": "a"},
                }
            },
            {"network_g": {"type": "EDSRR"}},
            {"network_g": {"type": "auto"}},
            {"network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_fea": 3}},
            {"network_t": {"type": "auto", "num_feat": 3}},
            {"distillers": [{"type": "LSFD", "kernel": 2}]},
            {"distillers": [{"type": "LSFD", "weights": {"no": 1}}]},
            {"train": {"total_iter": 10, "optim_g": {"type": "SGD", "lr": 1, "betas": [0, 0]}}},
        ],
        ids=str,
    )
    def test_mistake_is_found(self, validator: Any, change: dict[str, Any]) -> None:
        data = read_document(ROOT / "options" / "edsr_x4_lsfd.yml").data
        assert validator.is_valid(data)
        assert not validator.is_valid({**data, **change})
