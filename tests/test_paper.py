"""The paper's table: option files that are its recipes, hours, and figures kept apart."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest
from helpers import write_options

from lsfd.config import Options, load_options
from lsfd.data.catalogue import CATALOGUE
from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network
from lsfd.networks.taps import resolve_taps
from lsfd.training.compared import read_comparison
from lsfd.training.phases import Phase
from lsfd.training.planned import plan_runs
from lsfd.training.schedule import learning_rate
from lsfd.training.timing import StepCost

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "options" / "paper"
FILES = sorted(FOLDER.glob("*.yml"))
MILLIONS = {2: (5.02, 15.44), 3: (5.21, 15.63), 4: (5.17, 15.59)}
"""Parameters of student and teacher by scale; those of x4 are also in FAKD's Table 3."""

COMPARED: dict[str, Any] = {
    "seeds": [0, 1],
    "methods": {name: {"distillers": [{"type": name}]} for name in ("Plain", "Output")},
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Where dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSFD_DATA", "/data")


@pytest.fixture(scope="module")
def hours() -> ModuleType:
    return script("hours")


@pytest.fixture(scope="module")
def paper_table() -> ModuleType:
    return script("paper_table")


def options(name: str) -> Options:
    return load_options(FOLDER / f"{name}.yml").options


class TestOptionFiles:
    @pytest.mark.parametrize("scale", MILLIONS)
    def test_networks_are_those_of_the_papers(self, scale: int) -> None:
        loaded = load_options(FOLDER / f"dckd_table_x{scale}.yml")
        for key, expected in zip(("network_g", "network_t"), MILLIONS[scale], strict=True):
            assert round(count_parameters(build_network(loaded.raw[key])) / 1e6, 2) == expected

    @pytest.mark.parametrize(("key", "billions"), [("network_g", 12.93), ("network_t", 36.80)])
    def test_arithmetic_is_that_of_fakds_table(self, key: str, billions: float) -> None:
        """Of one patch at x4; the published count has activations and pooling as well."""
        network = build_network(load_options(FOLDER / "dckd_table_x4.yml").raw[key])
        assert multiply_adds(network, 48, 48) / 1e9 == pytest.approx(billions, rel=0.005)

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_rows_differ_in_the_method_alone(self, file: Path) -> None:
        runs = plan_runs(file)
        assert [run.method for run in runs] == ["Plain", "Output", "FAKD", "LSFD"]
        shared = []
        for run in runs:
            assert [method.type for method in run.loaded.options.distillers] == [run.method]
            shared.append({**run.loaded.raw, "name": "", "distillers": []})
        assert all(other == shared[0] for other in shared)

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_patches_batch_and_precision(self, file: Path) -> None:
        given = load_options(file).options
        train = given.datasets.train
        assert train.gt_size == 48 * given.scale
        assert train.batch_size_per_gpu * given.train.accumulate == 16
        assert (given.train.precision, given.train.warmup_iter) == ("fp32", -1)
        assert given.path.pretrain_network_t == [f"teachers/RCAN_BIX{given.scale}.pt"]

    @pytest.mark.parametrize("recipe", ["dckd", "fakd"])
    def test_scales_differ_in_the_scale_alone(self, recipe: str) -> None:
        first, *others = (options(f"{recipe}_table_x{scale}") for scale in (4, 2, 3))
        for other in others:
            assert other.train == first.train
            assert other.val == first.val
            for networks in (
                (first.network_g, other.network_g),
                (*first.network_t, *other.network_t),
            ):
                one, two = (dict(network.arguments, upscale=0) for network in networks)
                assert one == two

    def test_rates_are_dckds(self) -> None:
        """1e-4 divided by 10 every 100,000 of 250,000 steps."""
        train = options("dckd_table_x4").train
        at = {1: 1e-4, 100_000: 1e-4, 100_001: 1e-5, 200_000: 1e-5, 200_001: 1e-6, 250_000: 1e-6}
        self.check_rates(train, at)
        assert train.optim_g.betas == (0.9, 0.99)  # type: ignore[union-attr]

    def test_rates_are_fakds(self) -> None:
        """200 epochs of 1,000 batches; the code halves the rate as epoch 150 begins."""
        train = options("fakd_table_x4").train
        self.check_rates(train, {1: 1e-4, 149_000: 1e-4, 149_001: 5e-5, 200_000: 5e-5})
        assert train.optim_g.betas == (0.9, 0.999)  # type: ignore[union-attr]
        assert train.ema_decay == 0

    @staticmethod
    def check_rates(train: Any, rates: dict[int, float]) -> None:
        assert train.total_iter == max(rates)
        phase = Phase(1, train.total_iter)
        for iteration, rate in rates.items():
            assert learning_rate(train, phase, iteration) == pytest.approx(rate)

    def test_images_lie_where_prepare_puts_them(self) -> None:
        """``lsfd prepare --download SET -o ROOT`` makes ROOT/SET/HR."""
        data = options("dckd_table_x4").datasets
        (train,) = data.train.dataroot_gt
        assert train == f"/data/{data.train.name}/HR" and data.train.name in CATALOGUE
        sets = {each.name: each.dataroot_gt for each in data.validation.values()}
        assert list(sets) == ["Set5", "Set14", "B100", "Urban100"]
        assert sets == {name: [f"/data/benchmarks/{name}/HR"] for name in sets}
        assert sets.keys() <= CATALOGUE.keys()

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_taps_of_fakd_are_there(self, file: Path) -> None:
        (run,) = plan_runs(file, methods=["FAKD"])
        loaded = run.loaded.raw
        small = {"num_feat": 16, "num_block": 1}
        networks = [build_network({**loaded[key], **small}) for key in ("network_g", "network_t")]
        (method,) = run.loaded.options.distillers
        pairs = resolve_taps(*networks, method.taps)
        assert [pair.teacher for pair in pairs] == method.taps
        last_two = ["body.6", "upsample:input"]
        assert method.taps == (last_two if file.stem == "fakd_table_x3" else ["body.2", *last_two])


class TestHours:
    @pytest.fixture
    def measure(
        self,
        hours: ModuleType,
        run_options: Callable[..., dict[str, Any]],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> Callable[..., dict[str, Any]]:
        """A function that gives the record of a small run's hours, rows by their method."""

        def run(*arguments: str, **sections: Any) -> dict[str, Any]:
            file = write_options(tmp_path / "tiny.yml", run_options(**sections))
            record = tmp_path / "hours.json"
            hours.main([str(file), "--json", str(record), *arguments])
            measured: dict[str, Any] = json.loads(record.read_text())
            measured["printed"] = capsys.readouterr().out
            return measured | {row["method"]: row for row in measured["rows"]}

        return run

    def test_arithmetic_is_counted(
        self, measure: Callable[..., dict[str, Any]], run_options: Callable[..., dict[str, Any]]
    ) -> None:
        """Three forward passes for the student (its first layer's input needs no gradient), one
        for the teacher."""
        given = run_options()
        record = measure("--no_clock", "--tflops", "2", compare=COMPARED)
        # A tail whose layers are merged in training takes less than the network as it is built.
        student, teacher = (
            2 * multiply_adds(build_network(given[key]), 12, 12) * 2 / 1e12
            for key in ("network_g", "network_t")
        )
        plain, output = record["Plain"], record["Output"]
        assert 2 * student < plain["tflop"] < 3 * student
        assert 0.7 * teacher < output["tflop"] - plain["tflop"] <= teacher
        assert plain["derived_hours"] == pytest.approx(12 * plain["tflop"] / 2 / 3600)
        assert plain["hours"] is None and plain["runs"] == 2
        assert "| tiny, all" in record["printed"]

    def test_each_part_of_a_run_counts_as_long_as_it_lasts(
        self, measure: Callable[..., dict[str, Any]]
    ) -> None:
        """The teacher is there in the first quarter only, before the last step."""
        start = {"distillers": [{"type": "Output", "end": 3}]}
        compared = {**COMPARED, "methods": {**COMPARED["methods"], "Start": start}}
        record = measure("--no_clock", compare=compared)
        plain, output, found = (record[name]["tflop"] for name in ("Plain", "Output", "Start"))
        assert found == pytest.approx((3 * output + 9 * plain) / 12)

    def test_students_in_a_row_are_all_counted(
        self, measure: Callable[..., dict[str, Any]], run_options: Callable[..., dict[str, Any]]
    ) -> None:
        distillers = [{"type": "Output"}]
        (once,) = measure("--no_clock", distillers=distillers)["rows"]
        student = run_options()["network_g"]
        alike = {"distillers": distillers, "network_t": student}
        (later,) = measure("--no_clock", **alike, path={"pretrain_network_t": "absent.pt"})["rows"]
        (row,) = measure("--no_clock", distillers=distillers, train={"generations": 3})["rows"]
        assert row["steps"] == 36 and later["tflop"] < once["tflop"]
        assert row["tflop"] == pytest.approx((once["tflop"] + 2 * later["tflop"]) / 3)

    def test_an_absent_teacher_costs_what_a_trained_one_does(
        self, measure: Callable[..., dict[str, Any]]
    ) -> None:
        absent = measure("--no_clock", path={"pretrain_network_t": "nowhere/teacher.pt"})
        assert absent["rows"] == measure("--no_clock")["rows"]

    def test_a_teacher_of_unknown_type_has_to_be_there(
        self, measure: Callable[..., dict[str, Any]]
    ) -> None:
        with pytest.raises(LsfdError, match=r"nowhere\.pt is not there"):
            measure(
                "--no_clock", network_t={"type": "auto"}, path={"pretrain_network_t": "nowhere.pt"}
            )

    def test_time_is_scaled_to_the_whole_batch(
        self,
        hours: ModuleType,
        measure: Callable[..., dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seen = []

        def stand_in(file: Path) -> Any:
            seen.append(load_options(file).options)
            return StepCost(seconds=3.0, memory=2**30)

        monkeypatch.setattr(hours, "step_cost", stand_in)
        (row,) = measure("--batch", "1")["rows"]
        assert seen[0].datasets.train.batch_size_per_gpu == 1
        assert (row["batch"], row["measured_batch"], row["seconds"]) == (2, 1, 6.0)
        assert row["hours"] == pytest.approx(12 * 6.0 / 3600)

    def test_a_step_is_timed(self, measure: Callable[..., dict[str, Any]]) -> None:
        (row,) = measure()["rows"]
        assert row["seconds"] > 0 and row["memory"] > 2**20

    @pytest.mark.parametrize("wrong", [["--batch", "0"], ["--tflops", "0"], ["--tflops", "nan"]])
    def test_nonsense_is_refused(
        self, measure: Callable[..., dict[str, Any]], wrong: list[str]
    ) -> None:
        with pytest.raises(SystemExit):
            measure(*wrong)


class TestTable:
    @pytest.fixture(scope="class")
    def published(self) -> dict[str, Any]:
        text = (ROOT / "results" / "paper" / "published.json").read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(text)
        return record

    def figures(self, published: dict[str, Any]) -> Iterator[str]:
        for row in published["rows"]:
            for values in row["psnr_y"].values():
                yield from (value for value in values if value is not None)

    def test_page_is_up_to_date(self, paper_table: ModuleType) -> None:
        written = (ROOT / "results" / "paper" / "table.md").read_text(encoding="utf-8")
        assert written == paper_table.page(), "run python scripts/paper_table.py"

    def test_every_published_row_is_whole_and_has_a_source(self, published: dict[str, Any]) -> None:
        for row in published["rows"]:
            assert published["sources"][row["source"]]["mark"] in ("primary", "third party")
            assert row["psnr_y"].keys() == {"2", "3", "4"}
            assert all(len(v) == len(published["sets"]) for v in row["psnr_y"].values())
        assert all(22 < float(value) < 39 for value in self.figures(published))

    def test_what_only_a_leaderboard_has_is_marked(
        self, paper_table: ModuleType, published: dict[str, Any]
    ) -> None:
        for scale in paper_table.SCALES:
            lines = paper_table.published_table(published, scale).splitlines()
            marked = {line.split("|")[1].strip() for line in lines if "(third party)" in line}
            assert marked == {"LSFD", "FACD"}

    def test_ours_and_theirs_share_no_table(
        self, paper_table: ModuleType, published: dict[str, Any]
    ) -> None:
        page = paper_table.page()
        theirs, ours = page.split("## Ours")
        ours, _ = ours.split("## What the rows")
        assert all(value in theirs for value in self.figures(published))
        assert not any(f" {value} " in ours for value in self.figures(published))
        _, results = read_comparison(ROOT / "results" / "compare_rcan_x4")
        assert {"Plain", "LSFD"} <= {each.name for each in results}
        for each in results:
            for by_seed in each.scores.values():
                figure = f" {fmean(by_seed.values()):.3f} "
                assert figure in ours and figure not in theirs

    def test_our_budget_is_the_records(self, paper_table: ModuleType) -> None:
        text = paper_table.our_budget()
        for words in ("3x2, 32 channels", "4x4, 64 channels", "31.07 on Set5", "589 images"):
            assert words in text
        assert (
            "2,000 steps (Plain_4000: 4,000) of 8 patches of 24 LR pixels, x4 alone, 3 seeds"
            in text
        )

    def test_papers_differ_by_what_the_page_says(
        self, paper_table: ModuleType, published: dict[str, Any]
    ) -> None:
        assert paper_table.largest_difference(published) == "up to 0.31 dB (Urban100 x2)"
        urban = published["sets"].index("Urban100")
        for source in ("FAKD", "DCKD"):
            rows = {r["method"]: r for r in published["rows"] if r["source"] == source}
            psnr = {name: float(row["psnr_y"]["2"][urban]) for name, row in rows.items()}
            psnr.pop("teacher", None)
            assert max(psnr.values()) - psnr[paper_table.BASELINE] < 0.31
