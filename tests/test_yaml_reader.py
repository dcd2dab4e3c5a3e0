"""Reading YAML: its scalars, its lines, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfd.config import load_options
from lsfd.config.reader import Document, dump
from lsfd.errors import LsfdError
from lsfd.terminal import visible


def refusal(file: Path) -> str:
    with pytest.raises(LsfdError) as error:
        load_options(file)
    text = str(error.value)
    assert "\n" not in text
    return text


BROKEN = {
    "empty": ("", ": is empty; see options/edsr_x4_lsfd.yml"),
    "comments only": ("# nothing\n", ": is empty"),
    "list": ("- a\n", ": is no mapping of options"),
    "syntax": ("name: [a\nscale: 4\n", ", line 2: not valid YAML: "),
    "tab": ("train:\n\ttotal_iter: 3\n", ", line 2: not valid YAML: "),
    "two documents": ("a: 1\n---\nb: 2\n", ", line 2: not valid YAML: "),
    "duplicate key": ("name: a\nscale: 4\nname: b\n", ", line 3: the key 'name' is given twice"),
    "key that is no text": ("name: a\n3: b\n", ", line 2: the key '3' is not text"),
    "code": ("name: !!python/object/apply:os.getcwd []\n", ", line 1: the tag tag:yaml.org"),
    "code in a scalar": ("name: !!python/name:os.getcwd ''\n", ", line 1: the tag tag:yaml.org"),
    "other tag": ("a: 1\nname: !mine x\n", ", line 2: the tag !mine is not accepted"),
    "wrong tag": ("name: !!int x\n", ", line 1: 'x' is no int"),
    "unknown alias": ("name: *a\n", ", line 1: not valid YAML: "),
    "alias to itself": ("name: &a [*a]\n", ", line 1: more than "),
    "merge with itself": ("name: &a {<<: *a}\n", ": nested too deeply"),
    "merge of no mapping": ("a: &a 3\nb:\n  <<: *a\n", ", line 1: '<<' needs a mapping"),
    "deep": ("[" * 500, ": nested too deeply"),
    "endless digits": ("scale: " + "9" * 5000, ", line 1: '9999"),
    "control characters": ("name: \x01\n", ": not a text file"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "run.yml"
    file.write_text(text, encoding="utf-8")
    assert refusal(file).startswith(f"{file}{expected}")


def test_depth_is_bounded_whatever_the_interpreter_allows(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("[" * 500)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        assert refusal(file).endswith(": nested too deeply")
    finally:
        sys.setrecursionlimit(limit)


def test_billion_laughs_are_cut_short(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file = tmp_path / "run.yml"
    file.write_text("\n".join(lines))
    assert "more than 100000 values" in refusal(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.yml").endswith("no.yml: no such option file")
    assert "cannot be read" in refusal(tmp_path)
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    assert "not a text file" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("5e3", 5000.0), ("2.", 2.0), (".5", 0.5), ("-1", -1), ("010", 10),
        ("!!float 5e3", 5000.0), ("-.inf", float("-inf")), ("1_000", "1_000"), ("0x10", "0x10"),
        ("true", True), ("False", False), ("yes", "yes"), ("off", "off"), ("~", None), ("", None),
        ("None", "None"), ("2020-01-01", "2020-01-01"), ("12:30", "12:30"), ("'1'", "1"),
        ("1e", "1e"), ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    data = Document(f"x: {text}", "text").data["x"]
    assert data == value
    assert type(data) is type(value)


def test_lines_and_merge_keys() -> None:
    document = Document(
        "base: &base\n  a: 1\n  b: [1]\nother:\n  b: [2,\n    3]\n  <<: *base\n", "text"
    )
    assert document.data["other"] == {"a": 1, "b": [2, 3]}
    assert document.lines["other", "a"] == 2
    assert document.lines["other", "b"] == 5
    assert document.lines["other", "b", "1"] == 6
    document.data["other"]["a"] = 9
    assert document.data["base"]["a"] == 1


def test_earlier_mapping_of_a_merge_list_wins() -> None:
    document = Document("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}\n", "text")
    assert document.data["c"] == {"x": 1, "y": 3}


TEXTS = st.text().filter(lambda text: visible(text) == text)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXTS
    | st.sampled_from(["1e-4", "5e3", "yes", "null", "~", "<<", "=", "010", "1_0", ".inf", "${A}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)  # The machine may be busy.
@given(PLAIN)
def test_dump_reads_back_unchanged(data: Any) -> None:
    read = Document(dump(data), "text").data
    assert read == data
    assert repr(read) == repr(data)  # 1, 1.0 and True are equal, but not the same.
