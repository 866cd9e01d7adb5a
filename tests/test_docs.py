"""The documents, run: shell and Python blocks on tiny random models, links, the table of the README."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import factform.project
from factform.cli import main
from factform.ids import sha256_file

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

QUICK_SETTINGS = """dtype = 'float32'
[answer]
max_tokens = 60
[train]
rank = 2
batch = 2
steps = 2
held_out = 4
gate_cases = 8
twins = 0.1
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is to be saved as, its text."""

    language: str
    file: str | None
    text: str


def blocks(path: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(path.read_text("utf-8"))]


def commands(text: str) -> list[list[str]]:
    """The words of each command line, comments left out."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path, tiny_dir: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, stood in, where every new project uses the tiny models and trains for two steps."""
    models = f"[model]\nlanguage = {json.dumps(str(tiny_dir))}\nembedder = {json.dumps(str(tiny_embedder_dir))}\n"
    monkeypatch.setattr(factform.project, "TEMPLATE", models + QUICK_SETTINGS)
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FACTFORM_PROJECT", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


class Runner:
    """Runs a page's blocks in order. Python blocks share their names, as they would in one session."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
        self.monkeypatch, self.capfd = monkeypatch, capfd
        self.names: dict[str, Any] = {}
        self.output: dict[str, str] = {}
        self.gate_passed = False

    def run(self, block: Block) -> None:
        if block.file:
            Path(block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            exec(compile(block.text, "<docs>", "exec"), self.names)
        elif block.language == "sh":
            for words in commands(block.text):
                self._command(words)

    def _command(self, words: list[str]) -> None:
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.monkeypatch.setenv(name, value)
            return
        assert words[0] == "factform", f"only factform and export are run from the docs, not {words[0]!r}"
        self.capfd.readouterr()
        code = main(words[1:])
        out, err = self.capfd.readouterr()
        self.output[" ".join(words[1:])] = out
        # Random weights pass no gate: then `gate` must say so by its code, and `promote` must refuse.
        if words[1] == "gate":
            self.gate_passed = code == 0
            assert code in (0, 3), err
        elif words[1] == "promote":
            assert code == (0 if self.gate_passed else 1), err
        else:
            assert code == 0, f"{' '.join(words)} ended with {code}: {err}"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Runner:
    return Runner(monkeypatch, capfd)


def test_quickstart_runs_from_top_to_bottom(place: Path, runner: Runner) -> None:
    for block in blocks(ROOT / "docs" / "quickstart.md"):
        runner.run(block)
    assert "72 documents: 72 created" in runner.output["add shop/documents"]
    assert "documents/tile-saw-c11.md" in runner.output["search deposit for the tile saw C11 -k 3"]
    assert "no problems" in runner.output["behaviors check counter"]
    assert ", 0 refused" in runner.output["tune counter"]
    assert "1 documents: 1 updated" in runner.output["add shop/documents/heat-gun-b15.md"]
    refused = json.loads(runner.output["ask What does the Scaffold Z77 cost per day? --behavior counter --json"])
    assert refused["status"] in ("answered", "not_in_documents", "refused")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_facts_of_the_quickstart_on_the_default_models(
    tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACTFORM_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8").partition("\n## 2.")[0]
    (tmp_path / "page.md").write_text(text)
    for block in blocks(tmp_path / "page.md"):
        runner.run(block)
    found = runner.output["search deposit for the tile saw C11 -k 3"]
    assert found.startswith("1. documents/tile-saw-c11.md")
    asked = runner.output["ask What does the Hammer drill A10 cost per day?"]
    assert "smollm2-135m" in asked
    assert "documents/hammer-drill-a10.md · [20, 64)" in asked
    assert "verified" in asked


def test_readme_runs(place: Path, runner: Runner) -> None:
    make_demo_folder(place)
    for block in blocks(ROOT / "README.md"):
        runner.run(block)
    answer = json.loads(runner.output["ask How long is the notice period? --behavior desk --json"])
    assert answer["behavior"] == "desk"
    assert len(runner.output["audit list --limit 5"].splitlines()) > 5


def make_demo_folder(place: Path) -> None:
    """What the README's blocks expect around them: a folder of documents, and `demo` as `make demo` leaves it."""
    (place / "documents").mkdir()
    (place / "documents" / "returns.md").write_text("# Returns\n\nGoods may be returned within 30 days.\n")
    assert main(["init", "--project", "demo"]) == 0
    (place / "demo" / "documents").mkdir()
    folder = place / "demo" / "behaviors" / "desk"
    assert main(["behaviors", "new", "desk", "--project", "demo"]) == 0
    for flat in range(40):
        text = f"# Flat {flat}\n\nThe notice period of flat {flat} is {flat + 2} weeks.\n"
        (place / "demo" / "documents" / f"{flat}.md").write_text(text)
    for name, flats in (("examples", range(30)), ("cases", range(30, 40))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(example(flat)) + "\n" for flat in flats))


def example(flat: int) -> dict[str, Any]:
    quote, document = f"The notice period of flat {flat} is {flat + 2} weeks.", f"documents/{flat}.md"
    return {
        "id": f"flat-{flat}",
        "question": f"How long is the notice period of flat {flat}?",
        "expected": {"answer": f"{flat + 2} weeks", "quote": quote, "source": document},
        "documents": [document],
    }


# --- links and words ------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            if re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            assert file.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_metric_is_explained() -> None:
    from factform.measure.score import METRICS

    text = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    assert not [metric for metric in METRICS if f"`{metric}`" not in text]


def test_pages_name_no_place_of_the_machine_they_were_written_on() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", page.read_text("utf-8")), page.name


# --- the table ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(str(ROOT / "benchmarks"))
        spec.loader.exec_module(module)
    return module


def cell(value: float, low: float, high: float, n: int = 40) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


REPORT = {
    "n": 40,
    "seed": 0,
    "arms": {
        "base": {"valid": cell(0, 0, 0.088), "grounded": None, "prompt_tokens": cell(900, 890, 910), "ms": None},
        "both": {
            "valid": cell(0.975, 0.871, 0.996),
            "grounded": cell(0.8, 0.64, 0.9, 32),
            "prompt_tokens": cell(612.4, 600, 620.6),
            "ms": {**cell(1234.5, 1100, 1300), "p50": 1234.5, "p95": 2000},
        },
    },
}

WANTED = """\
| | `base` | `both` |
|---|---:|---:|
| in contract without the mask | 0.0 % [0, 9] n=40 | 97.5 % [87, 100] n=40 |
| answers fully grounded | – | 80.0 % [64, 90] n=32 |
| prompt tokens, mean | 900 [890, 910] n=40 | 612 [600, 621] n=40 |
| ms an answer, median | – | 1,234 [1,100, 1,300] n=40 |

40 held-out cases, 95 % intervals in brackets, seed 0."""


def test_the_table_of_a_small_report(table: ModuleType) -> None:
    assert table.block(REPORT) == WANTED


def test_the_notes_say_where_the_numbers_come_from(table: ModuleType) -> None:
    place = {"time": "2026-11-22T10:00:00Z", "cores": 2, "cpu": "A CPU", "commit": "0123456789abcdef"}
    tuning = {"rows": 500, "seconds": {"train": 200.4}}
    update = {"save_to_searchable_ms": 24.6, "save_to_answered_ms": 1500, "after_right": False}
    full = {**REPORT, "environment": place, "machine": {"dtype": "float32"}, "seconds": {"a": 100, "b": 211}}
    notes = table.block({**full, "tuning": tuning, "update": update}).splitlines()[-3:]
    assert notes == [
        "Measured 2026-11-22 on 2 cores of A CPU, float32, commit 0123456789ab.",
        "The whole demo took 311 s, 200 s of it training 500 rows.",
        "A changed document was searchable 25 ms after saving and answered from after 1,500 ms (right: no).",
    ]


def test_only_what_stands_between_the_marks_is_replaced(table: ModuleType) -> None:
    begin, end = table.marks("demo")
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    assert table.replaced(text, "new") == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert table.replaced(table.replaced(text, "other"), "new") == table.replaced(text, "new")
    for broken in ("nothing", f"{end}\n{begin}", text + begin):
        with pytest.raises(ValueError, match="once each"):
            table.replaced(broken, "new")


def test_every_row_of_the_table_is_in_a_report(table: ModuleType) -> None:
    from factform.measure.evaluate import ArmReport

    assert {metric for metric, _, _ in table.ROWS} <= set(ArmReport.__dataclass_fields__)


def test_the_script_writes_and_checks_the_readme(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(
        "# Title\n" + "\n".join(mark for name in ("demo", "speed", "facts") for mark in table.marks(name))
    )
    (tmp_path / "demo-report.json").write_text(json.dumps(REPORT))
    assert table.main([]) == 1  # one report is not there yet
    (tmp_path / "speed.json").write_text((ROOT / "benchmarks" / "results" / "speed.json").read_text("utf-8"))
    assert table.main(["--check"]) == 1
    assert WANTED not in (tmp_path / "README.md").read_text()
    assert table.main([]) == 0
    assert WANTED in (tmp_path / "README.md").read_text()
    assert table.main(["--check"]) == 0
    # A report of the data layer is told as soon as it is there.
    (tmp_path / "faults.json").write_text(json.dumps({"kills": {"kills": 7, "violations": []}}))
    assert table.main(["--check"]) == 1
    assert table.main([]) == 0
    assert "| 0 of 7 | yes |" in (tmp_path / "README.md").read_text()


def test_the_readme_shows_the_committed_reports(table: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert table.written(readme) == readme
    assert "| first token, 5 passages warm" in readme
    assert "| words alone (BM25) |" in readme


@pytest.mark.parametrize(
    ("report", "metrics"),
    [
        (
            "evidence.json",
            ["exact_match", "token_f1", "source_right", "retrieved", "refusal", "false_refusal", "token_f1_released"],
        ),
        ("evidence-tables.json", ["token_f1"]),
        ("evidence-own.json", ["exact_match", "token_f1"]),
        (
            "asking.json",
            [
                *("exact_match", "token_f1", "source_right", "refusal", "false_refusal", "token_f1_released"),
                *("quotes_verbatim", "quotes_hold_the_answer_given", "quotes_hold_a_right_answer"),
            ],
        ),
    ],
)
def test_the_card_of_the_evidence_model_shows_the_committed_reports(report: str, metrics: list[str]) -> None:
    folder = ROOT / "src" / "factform" / "facts" / "weights"
    card = (folder / "README.md").read_text("utf-8")
    made = json.loads((ROOT / "benchmarks" / "results" / report).read_text("utf-8"))
    assert made.get("model", made.get("evidence")) == sha256_file(folder / "evidence.safetensors")
    for metric in metrics:
        value, low, high = (100 * made[metric][key] for key in ("value", "low", "high"))
        assert f"{value:.1f} % [{low:.1f}, {high:.1f}] | n={made[metric]['n']} |" in card, metric
