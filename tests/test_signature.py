"""Arguments checked against signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from lsfd.config.signature import ArgumentProblem, arguments_schema, check_arguments

Distance = Literal["l1", "l2"]


class Annotated_:
    def __init__(
        self,
        setting: object,
        weights: Mapping[str, float] | None = None,
        kernel: Literal[1, 3] = 1,
        distance: Distance = "l1",
        rate: Annotated[float, Field(ge=0, le=1)] = 0.5,
        count: int = 2,
        optional: int | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        detach: bool = True,
    ) -> None:
        pass


class Inheriting(Annotated_):
    pass


class Bare:
    def __init__(self, num_in_ch, num_feat=64, act="relu", mean=(0.1, 0.2), bias=True, qk=None):  # type: ignore[no-untyped-def]
        pass


def function(*, size: int, **others: Any) -> None:
    pass


def test_good_arguments_come_back_without_defaults() -> None:
    given = {"weights": {"feature": 0}, "kernel": 3, "rate": 1, "count": 5e3, "betas": [0.5, 0.6]}
    checked = check_arguments(Annotated_, given, ignore={"setting"})
    assert checked == {
        "weights": {"feature": 0.0},
        "kernel": 3,
        "rate": 1.0,
        "count": 5000,
        "betas": (0.5, 0.6),
    }
    assert type(checked["count"]) is int
    assert type(checked["rate"]) is float
    assert check_arguments(Annotated_, {"optional": 5e3}, ["setting"]) == {"optional": 5000}


PROBLEMS = [
    ({"kernal": 3}, "kernal", "unknown option; did you mean 'kernel'?"),
    ({"setting": 3}, "setting", "unknown option; valid: betas, count"),
    ({"kernel": 2}, "kernel", "should be 1 or 3, got 2"),
    ({"distance": "l3"}, "distance", "should be 'l1' or 'l2', got 'l3'"),
    ({"weights": {"a": "1"}}, "weights.a", "should be a number, got '1'"),
    ({"weights": [1]}, "weights", "should be a mapping, got [1]"),
    ({"rate": 2}, "rate", "should be less than or equal to 1, got 2"),
    ({"rate": float("nan")}, "rate", "should be a finite number, got nan"),
    ({"count": "2"}, "count", "should be a whole number, got '2'"),
    ({"count": True}, "count", "should be a whole number, got true"),
    ({"optional": "2"}, "optional", "should be a whole number, got '2'"),
    ({"betas": [1]}, "betas.1", "is missing"),
    ({"detach": 1}, "detach", "should be true or false, got 1"),
]


@pytest.mark.parametrize("kind", [Annotated_, Inheriting])
@pytest.mark.parametrize(("given", "key", "message"), PROBLEMS)
def test_problem_names_key_and_reason(
    kind: type[Any], given: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ArgumentProblem) as error:
        check_arguments(kind, given, ignore={"setting"})
    assert error.value.key == key
    assert error.value.message.startswith(message)
    assert str(error.value) == f"{key}: {error.value.message}"


def test_without_annotation_the_default_tells_the_type() -> None:
    given = {"num_in_ch": 3, "num_feat": 8, "act": "prelu", "mean": [0, 1], "bias": False, "qk": 1}
    assert check_arguments(Bare, given) == {**given, "mean": (0, 1)}
    for name, wrong in {"num_feat": "8", "act": 3, "mean": 3, "bias": "no"}.items():
        with pytest.raises(ArgumentProblem) as error:
            check_arguments(Bare, {"num_in_ch": 3, name: wrong})
        assert error.value.key == name


def test_missing_argument() -> None:
    with pytest.raises(ArgumentProblem, match=r"^num_in_ch: is missing$"):
        check_arguments(Bare, {"num_feat": 3})


def test_keyword_arguments_without_limit() -> None:
    assert check_arguments(function, {"size": 1, "colour": "red"}) == {"size": 1, "colour": "red"}
    with pytest.raises(ArgumentProblem, match=r"^size: is missing$"):
        check_arguments(function, {"colour": "red"})


def test_schema() -> None:
    schema = arguments_schema(Annotated_, {"kernel": "Side of it.", "no": "x"}, ignore={"setting"})
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {
        "weights", "kernel", "distance", "rate", "count", "optional", "betas", "detach",
    }  # fmt: skip
    assert schema["properties"]["kernel"]["description"] == "Side of it."
    assert schema["properties"]["kernel"]["enum"] == [1, 3]
    assert schema["properties"]["rate"]["maximum"] == 1
    assert arguments_schema(Bare)["required"] == ["num_in_ch"]
