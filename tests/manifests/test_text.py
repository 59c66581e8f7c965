"""Files become documents that know their lines, read as Kubernetes and CloudFormation read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.text import UnreadableError, documents, line_of, repeated_key


def test_yaml_documents_know_their_lines() -> None:
    found = documents("# a file\nkind: Mesh\n---\n---\nspec:\n  a:\n    b: 1\n", "mesh.yaml")
    assert [(document.value, document.source) for document in found] == [
        ({"kind": "Mesh"}, "mesh.yaml:2"),
        ({"spec": {"a": {"b": 1}}}, "mesh.yaml:5"),
    ]
    assert line_of(found[1].value["spec"]["a"], 0) == 7


def test_json_documents_know_their_lines() -> None:
    (document,) = documents('\n[{"a": 1},\n {"b": {}}]\n', "list.json")
    assert document.source == "list.json:2"
    assert [line_of(item, 0) for item in document.value] == [2, 3]


def test_json_values_may_follow_each_other() -> None:
    found = documents('{"a": 1}\n{"b":\n {"c": 2}} [3]', "all.json")
    assert [(document.value, document.line) for document in found] == [({"a": 1}, 1), ({"b": {"c": 2}}, 2), ([3], 3)]
    assert line_of(found[1].value["b"], 0) == 3


def test_flow_style_yaml_is_not_mistaken_for_json() -> None:
    assert documents("{kind: Mesh}", "f")[0].value == {"kind": "Mesh"}


def test_scalars_are_those_of_kubernetes() -> None:
    text = "date: 2020-01-31\ntime: 12:30:45\nyes: yes\n8080: 010\nfloat: 1e3\nnothing: ~\ntext: '1'\n"
    assert documents(text, "f")[0].value == {
        "date": "2020-01-31",
        "time": "12:30:45",
        "yes": True,
        "8080": 8,
        "float": 1000.0,
        "nothing": None,
        "text": "1",
    }


def test_short_tags_come_out_long() -> None:
    text = "a: !Ref Mesh\nb: !GetAtt Node.Arn.x\nc: !Sub [x, {y: !Ref z}]\nd: !If [c, 1, !Condition d]\n"
    assert documents(text, "f")[0].value == {
        "a": {"Ref": "Mesh"},
        "b": {"Fn::GetAtt": ["Node", "Arn.x"]},
        "c": {"Fn::Sub": ["x", {"y": {"Ref": "z"}}]},
        "d": {"Fn::If": ["c", 1, {"Condition": "d"}]},
    }


def test_anchors_and_merges_are_followed() -> None:
    assert documents("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", "f")[0].value["b"] == {"p": 1, "q": 3}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: 2\na: 3", ("a", 1)),
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}', ("c", 2)),
        ("- a: &x {b: 1, b: 2}\n  c: *x", ("b", 1)),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}", None),
    ],
)
def test_a_key_that_is_there_twice_is_noted(text: str, where: tuple[str, int] | None) -> None:
    assert repeated_key(documents(text, "f")[0].value) == where


@pytest.mark.parametrize(
    ("text", "source", "says"),
    [
        ("a: [1,\n", "f:2", "neither YAML nor JSON"),
        ("\ta: 1", "f:1", "neither YAML nor JSON"),
        ("a: &x [*x]", "f:1", "recursive"),
        ("!!python/object:os.system x", "f:1", "neither YAML nor JSON"),
        ("\x00", "f", "neither YAML nor JSON"),
        ("[" * 100_000, "f", "nests too deep"),
        ("a: " + "[" * 100_000, "f:1", "neither YAML nor JSON"),
        ("- " * 100_000, "f:1", "nests too deep"),
    ],
)
def test_what_cannot_be_read_names_its_place(text: str, source: str, says: str) -> None:
    with pytest.raises(UnreadableError, match=says) as caught:
        documents(text, "f")
    assert caught.value.source == source


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _JSON, max_size=4) | st.lists(_JSON, max_size=4))
def test_json_is_read_as_the_standard_reader_reads_it(value: object) -> None:
    assert [document.value for document in documents(json.dumps(value, indent=1), "f")] == [value]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        documents(text, "f")
    except UnreadableError as error:
        assert error.source.startswith("f")  # noqa: PT017
