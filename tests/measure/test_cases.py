"""Strict readers: what is right is read, everything wrong is told at once and by place."""

from pathlib import Path

import pytest

from factform.errors import CaseError
from factform.measure.cases import read_cases, read_qrels, read_queries
from factform.records import Case


def written(tmp_path: Path, text: str | bytes, name: str = "file.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(path: Path, read: object = read_cases) -> list[str]:
    with pytest.raises(CaseError) as caught:
        read(path)  # type: ignore[operator]
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_cases_are_read_in_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '\ufeff{"id": "2", "question": "Q\u2028?", "answers": ["a","b"], "documents": ["d"], "title": 1, "kind": ""}\n'
        "\n"
        '{"id": "1", "question": "R?", "expected": {"x": 1}, "answers": null}\r\n'
        '{"id": "3", "question": "S?", "answerable": false, "answers": [], "expected": {"status": "not_in_documents"}}',
    )
    assert read_cases(path) == (
        Case("2", "Q\u2028?", ("a", "b"), None, True, ("d",)),
        Case("1", "R?", (), {"x": 1}, True, ()),
        Case("3", "S?", (), {"status": "not_in_documents"}, False, ()),
    )


def test_every_problem_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        b'{"id": "1", "question": "Q?", "answers": ["a"]}\n'
        b"not json\n"
        b'{"id": "1", "question": "Q?", "answers": ["a"]}\n'
        b'{"id": "", "question": 7, "answers": "a", "expcted": {}}\n'
        b'{"id": "5", "question": "Q?"}\n'
        b'{"id": "6", "question": "Q?", "answers": ["a"], "answerable": false}\n'
        b'{"id": "7", "question": "Q?", "answers": ["a"], "answerable": "no"}\n'
        b'{"id": "8", "question": "\xff"}\n'
        b'["id"]\n'
        b'{"id": "9", "id": "10", "question": "Q?"}\n'
        b'{"id": "11", "question": "Q?", "expected": {"status": "not_in_documents"}}\n'
        b'{"id": "12", "question": "Q?", "expected": {"x": NaN}}\n'
        b'{"id": "13", "question": "Q?", "expected": {"x": 1}, "answerable": false}\n'
        b'{"id": "14", "question": "Q?", "answers": [1, ""]}\n',
    )
    found = problems(path)
    expected = [
        ("2", "line: not valid JSON"),
        ("3", "id: '1' was used before"),
        ("4", "expcted: unknown key"),
        ("4", "id: must be a text"),
        ("4", "question: must be a text that is not empty, is 7"),
        ("4", 'answers: must be a list of texts that are not empty, is "a"'),
        ("5", "answers: an answerable case needs"),
        ("6", "answers: must be empty"),
        ("7", 'answerable: must be true or false, is "no"'),
        ("8", "line: not UTF-8 at byte"),
        ("9", "line: must be a JSON object"),
        ("10", "line: not valid JSON: key 'id' stands twice"),
        ("11", "expected: is the refusal, but"),
        ("12", "line: not valid JSON: NaN"),
        ("13", "expected: where answerable is false"),
        ("14", "answers: must be a list of texts"),
    ]
    assert sorted(line.split(" ")[0] for line in found) == sorted(f"file.jsonl:{n}:" for n, _ in expected)
    for number, what in expected:
        assert any(line.startswith(f"file.jsonl:{number}: {what}") for line in found), (number, what)


def test_a_file_that_cannot_be_read_or_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"missing\.jsonl cannot be read"):
        read_cases(tmp_path / "missing.jsonl")
    with pytest.raises(CaseError, match="holds no case"):
        read_cases(written(tmp_path, "\n \n"))
    deep = '{"id": "1", "question": "Q?", "expected": ' + "[" * 100_000
    assert "not valid JSON" in problems(written(tmp_path, deep))[0]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "x\n" * 80))
    assert len(found) == 51
    assert found[-1] == "… and 30 more"


def test_queries(tmp_path: Path) -> None:
    path = written(tmp_path, '{"_id": "1", "text": "rent", "metadata": {}}\n{"id": "2", "text": "boiler"}\n')
    assert read_queries(path) == {"1": "rent", "2": "boiler"}
    bad = written(tmp_path, '{"id": "1", "text": "rent"}\n{"id": "1", "text": "rent"}\n{"id": 2}\n', "bad.jsonl")
    assert problems(bad, read_queries) == [
        "bad.jsonl:2: id: '1' was used before",
        "bad.jsonl:3: id: must be a text that is not empty, is 2",
        "bad.jsonl:3: text: is missing",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "query_id\tdoc_id\tscore\n1\ta\t1\n1\tb\t0\n2\tb\t2\n",
        "query-id\tcorpus-id\tscore\r\n1\ta\t1\r\n1\tb\t0\r\n2\tb\t2\r\n",
        "score\tcorpus-id\tquery-id\n1\ta\t1\n0\tb\t1\n2\tb\t2\n",
        "1\ta\t1\n1\tb\t0\n2\tb\t2",
        "1 0 a 1\n1 0 b 0\n2 0 b 2\n",
    ],
)
def test_qrels_in_every_form(tmp_path: Path, text: str) -> None:
    assert read_qrels(written(tmp_path, text, "q.tsv")) == {"1": {"a": 1, "b": 0}, "2": {"b": 2}}


def test_qrels_keep_ids_with_spaces(tmp_path: Path) -> None:
    assert read_qrels(written(tmp_path, "1\tLease of unit 7\t1\n")) == {"1": {"Lease of unit 7": 1}}


def test_qrels_problems(tmp_path: Path) -> None:
    path = written(tmp_path, "query-id\tcorpus-id\tscore\n1\ta\t1\n1\ta\t2\n1\tb\n2\tc\thigh\n\tc\t1\n", "q.tsv")
    assert problems(path, read_qrels) == [
        "q.tsv:3: document: 'a' was judged before for query '1'",
        "q.tsv:4: line: 2 columns where 3 are expected (query, document, score)",
        "q.tsv:5: score: must be a whole number, is 'high'",
        "q.tsv:6: query: is empty",
    ]
    with pytest.raises(CaseError, match="holds no judgement"):
        read_qrels(written(tmp_path, "query-id\tcorpus-id\tscore\n"))
