"""The speed benchmark's own arithmetic, its jobs and its tables; nothing is timed against anything."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from factform.model.prompt import ChatFormat
from factform.project import Project

if TYPE_CHECKING:
    from factform.model.reader import Reader

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
CHAT = ChatFormat("<s>", "</s><u>", "</u>")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules by name; they are scripts, so their folders have to be on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import protocol
    import run_factform
    import speed
    from harness import environments, summary, table, texts

    modules = (protocol, run_factform, speed, environments, summary, table, texts)
    yield {module.__name__.rpartition(".")[2]: module for module in modules}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"harness", "speed", *(p.stem for p in (BENCHMARKS / "peers").glob("*.py"))}:
            del sys.modules[name]


# --- passages and jobs ----------------------------------------------------------------------


def letters(text: str) -> list[tuple[int, int]]:
    """Every character a token."""
    return [(i, i + 1) for i in range(len(text))]


def test_passages_are_cut_to_length_and_run_on_where_a_text_is_short(parts: dict[str, ModuleType]) -> None:
    got = parts["texts"].cut(["abcdefg", "hij", "klmnopqrstuvwx"], letters, length=6, count=3)
    assert got == ["abcdef", "g\n\nhij", "klmnop"]
    with pytest.raises(ValueError, match="hold 1 passages of 6 tokens, 2 are needed"):
        parts["texts"].cut(["abcdefg"], letters, length=6, count=2)


def test_prose_comes_from_the_project_or_a_file(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    assert len(parts["texts"].read_prose(None, ROOT)) > 5
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "text": "one"}\n{"text": "two"}\n')
    assert parts["texts"].read_prose(tmp_path / "rows.jsonl", ROOT) == ["one", "two"]


def test_no_two_prompts_of_a_job_begin_with_the_same_passage(parts: dict[str, ModuleType]) -> None:
    texts = parts["texts"]
    pool = [f"passage {n}." for n in range(texts.POOL)]
    for seed in range(3):
        tasks = texts.tasks(pool, CHAT, seed)
        firsts = [
            steps[0]["prompt"]["blocks"][1]
            for task in tasks
            for steps in ([task["steps"]] if "again" in task["name"] else [[step] for step in task["steps"]])
        ]
        assert len(set(firsts)) == len(firsts) > 5
    assert texts.tasks(pool, CHAT, 0) == texts.tasks(pool, CHAT, 0) != texts.tasks(pool, CHAT, 1)


def test_tasks_hold_so_many_passages_and_survive_json(parts: dict[str, ModuleType]) -> None:
    texts, protocol = parts["texts"], parts["protocol"]
    pool = [f"passage {n}." for n in range(texts.POOL)]
    made = [*texts.tasks(pool, CHAT, 0, repeats=3), texts.grown(pool, CHAT, 0)]
    tasks = {task.name: task for task in protocol.read_tasks(json.loads(json.dumps(made)))}
    for kind, size in (*(("other", size) for size in texts.SIZES), ("grown", texts.GROWN)):
        for step in tasks[f"first/{kind}/{size}"].steps:
            assert len(step.prompt.blocks) == 2 * size
            assert step.tokens == 1
    assert len(tasks["first/other/5"].steps) == 3
    again = tasks["first/again/5"].steps
    assert [(step.measured, step.prefix) for step in again] == [(False, "keep"), (True, "use"), (True, "use")]
    assert len({step.prompt.prefix for step in again}) == 1
    assert len({step.prompt.whole for step in again}) == 3
    assert tasks["decode"].steps[0].tokens == texts.DECODED


def test_only_measured_runs_are_kept(parts: dict[str, ModuleType]) -> None:
    protocol = parts["protocol"]
    seen = []

    class Engine:
        def write(self, step: Any) -> Any:
            seen.append(step.prompt.whole)
            return protocol.Run(1.0, 2.0, len(step.prompt.whole), step.tokens)

    text = protocol.Text("h", ("a", "b"), "t")
    task = protocol.Task("x", (protocol.Step(text, 3, measured=False), protocol.Step(text, 4)))
    assert protocol.run_tasks(Engine(), [task]) == {
        "x": [{"first_ms": 1.0, "total_ms": 2.0, "prompt_tokens": 4, "tokens": 4}]
    }
    assert seen == ["habt", "habt"]


def test_factform_does_its_tasks_on_a_tiny_model(parts: dict[str, ModuleType], tiny: Reader) -> None:
    texts, protocol, own = parts["texts"], parts["protocol"], parts["run_factform"]
    pool = [f"The rent of unit {n} is {n}80 euros." for n in range(texts.POOL)]
    steps = [texts.step(texts.prompt("What is the rent?", pool[:3], tiny.chat), 1)]
    decode = [texts.step(texts.prompt("What is the rent?", pool[3:5], tiny.chat), 7)]
    values = [{"name": "first/other/3", "steps": steps}, {"name": "decode", "steps": decode}]
    got = own.run_all(own.FactformEngine(tiny), protocol.read_tasks(values))
    assert set(got) == {f"first/{kind}/3" for kind in ("warm", "cold", "exact", "tail")} | {"decode"}
    tokens = tiny.tokenize(own.prompt_of(protocol.read_tasks(values)[0].steps[0]))
    assert {run["prompt_tokens"] for run in got["first/warm/3"]} == {tokens.total}
    assert {run["prompt_tokens"] for run in got["first/tail/3"]} == {len(tokens.tail)}
    assert [run["tokens"] for run in got["decode"]] == [7]


def test_the_result_of_factform_has_all_that_the_report_is_made_of(
    parts: dict[str, ModuleType], tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import roofline

    monkeypatch.setattr(roofline, "BEYOND_CACHE", 1 << 16)
    monkeypatch.setattr(roofline, "SIDE", 32)
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path))
    texts, threads = parts["texts"], torch.get_num_threads()
    pool = [f"Rent {n}." for n in range(texts.POOL)]
    tasks = [*texts.tasks(pool, CHAT, 0, repeats=1), texts.grown(pool, CHAT, 0)]
    job = {"threads": threads, "round": 0, "model": str(tiny_dir), "tasks": tasks, "context": 50, "project": ""}
    got = json.loads(json.dumps(parts["run_factform"].run(job)))
    report = parts["speed"].reported([{"factform": got}], {"haystack": "not installed"})
    for size in (*texts.SIZES, texts.GROWN):
        kinds = {"warm", "tail"} if size == texts.GROWN else {"warm", "tail", "cold", "exact"}
        assert set(report["figures"][f"first token, {size} passages, ms"]) == {f"factform, {kind}" for kind in kinds}
    measured = [goal["name"] for goal in report["goals"] if goal["measured"] is not None]
    assert measured == [
        "first token, 5 passages warm: of the tail alone",
        "first token, 10 passages warm: of the tail alone",
        "first token, growth from 5 to 20",
    ]
    assert report["limits"]["cold_share"] > 0
    assert list(report["peers"]) == ["factform", "haystack"]


def test_bytes_of_a_token_are_those_of_the_weights(parts: dict[str, ModuleType], tiny: Reader) -> None:
    import roofline

    weights = tiny.weights
    layers = sum(t.nbytes for layer in weights.layers for t in vars(layer).values() if t is not None)
    keys = 2 * weights.config.layers * weights.config.kv_heads * weights.config.head_dim * 4
    assert weights.small is None
    assert roofline.token_bytes(tiny, 10) == layers + weights.head.nbytes + 10 * keys
    assert roofline.model(tiny, 10)["flop_head"] == 2 * weights.head.numel()


SCHEMA = {
    "type": "object",
    "properties": {
        "source": {"type": "string", "x-factform": "source"},
        "quote": {"type": "string", "x-factform": "quote"},
        "rent": {"type": "string", "pattern": "^[0-9]{3}$"},
    },
    "required": ["source", "quote", "rent"],
    "additionalProperties": False,
}


def write_project(folder: Path, language: Path, embedder: Path) -> None:
    """Three documents and a behavior that cannot refuse, on tiny models."""
    models = f"[model]\nlanguage = {json.dumps(str(language))}\nembedder = {json.dumps(str(embedder))}\n"
    behavior = folder / "behaviors" / "rents"
    behavior.mkdir(parents=True)
    (folder / "documents").mkdir()
    (folder / "factform.toml").write_text(f"{models}dtype = 'float32'\n")
    toml = 'name = "rents"\ndescription = "Rents."\npassages = 1\nmax_tokens = 150\nrefusal = false\n'
    (behavior / "behavior.toml").write_text(toml)
    (behavior / "instructions.md").write_text("Answer with the rent and the sentence that states it.")
    (behavior / "schema.json").write_text(json.dumps(SCHEMA))
    rows = []
    for flat in (1, 2, 3):
        quote = f"The monthly rent for flat {flat} is {flat}80 euros."
        (folder / "documents" / f"flat-{flat}.txt").write_text(quote)
        expected = {"source": f"documents/flat-{flat}.txt", "quote": quote, "rent": f"{flat}80"}
        asked = {"id": str(flat), "question": f"What is the rent for flat {flat}?", "answerable": True}
        rows.append(json.dumps({**asked, "expected": expected, "documents": [f"documents/flat-{flat}.txt"]}))
    (behavior / "examples.jsonl").write_text("\n".join(rows[:2]) + "\n")
    (behavior / "cases.jsonl").write_text(rows[2] + "\n")
    with Project.open(folder) as project:
        assert [receipt.status for receipt in project.add([folder / "documents"])] == ["created"] * 3


@pytest.fixture
def project(tmp_path: Path, tiny_dir: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))
    write_project(tmp_path / "project", tiny_dir, tiny_embedder_dir)
    return tmp_path / "project"


def test_whole_answers_are_measured_on_a_tiny_project(parts: dict[str, ModuleType], project: Path) -> None:
    import answers
    import plan_answers

    plan = plan_answers.run({"project": str(project), "behavior": "rents", "questions": 4, "threads": 1})
    assert [each["question"] for each in plan["questions"]] == ["What is the rent for flat 3?"]
    assert len(plan["chunks"]) == plan["documents"] == 3
    assert plan["instructions"] in plan["prompts"][0]["header"]
    got = answers.measure(project, "rents", [plan["questions"][0]["question"]], 2, operators=False)
    assert got["identical"] == len(got["warm"]) == len(got["cold"]) == len(got["plain"]) == 1
    warm, plain = got["warm"][0], got["plain"][0]
    assert warm["tokens"] == warm["steps"] + warm["forced"] + warm["drafted"]
    assert warm["forced"] > 0
    assert (plain["forced"], plain["drafted"]) == (0, 0)
    assert {"alone_s", "together_s", "asks"} == set(got["together"])
    assert "text" not in warm
    told = got["profile"]
    assert told["missing"] == []
    assert sum(told["stages_ms"].values()) == pytest.approx(told["total_ms"])
    assert told["stages_ms"]["forward, writing"] > 0


def test_a_stage_counts_without_the_stages_inside_it(parts: dict[str, ModuleType]) -> None:
    import profile_answer

    clock = profile_answer.Clock()
    inner = clock.wrapped("inner", lambda: time.sleep(0.02))
    outer = clock.wrapped("outer", lambda: (inner(), inner(), time.sleep(0.01)))
    outer()
    assert clock.calls == {"inner": 2, "outer": 1}
    assert clock.ms["inner"] >= 40
    assert 10 <= clock.ms["outer"] < clock.ms["inner"]


# --- environments ---------------------------------------------------------------------------


def test_requirements_are_pinned_and_agree_with_the_projects_own() -> None:
    own = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for file in sorted((BENCHMARKS / "peers").glob("*.txt")):
        pins = dict(re.fullmatch(r"([\w.\-]+)==([\w.]+)", line).groups() for line in file.read_text().splitlines())  # type: ignore[union-attr]
        assert "torchvision" not in pins
        assert "torchaudio" not in pins
        unlike = {name for name, v in pins.items() if own.get(name, v) != v}
        assert unlike == ({"PyStemmer"} if file.stem == "llamaindex" else set()), file.name


def test_what_a_peer_pins_itself_is_no_constraint(parts: dict[str, ModuleType]) -> None:
    constraints, wanted = "# why\nPyStemmer==3.1.0\ntorch==2.13.0\nPy_Yaml==6\n", "pystemmer==2.2.0.3\npy.yaml==6\n"
    assert parts["environments"].unpinned(constraints, wanted) == "# why\ntorch==2.13.0\n"


def test_a_peer_that_fails_is_told_by_its_last_line(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    environments = parts["environments"]
    job = {"threads": 1, "tasks": [], "gguf": "none"}
    with pytest.raises(environments.PeerFailed, match="exit code 1: ModuleNotFoundError: No module named"):
        environments.run_peer(Path(sys.executable), "run_llamacpp", job, tmp_path)


def test_a_result_is_used_again_for_the_same_job_only(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    environments = parts["environments"]
    job = {"threads": 1, "tasks": []}
    digest = parts["speed"].sha256_json({**job, "program": "run_x"})[:16]
    (tmp_path / f"run_x-{digest}.json").write_text('{"runs": {}}')
    assert environments.run_peer(Path(sys.executable), "run_x", job, tmp_path) == {"runs": {}}
    with pytest.raises(environments.PeerFailed):
        environments.run_peer(Path(sys.executable), "run_x", {**job, "threads": 2}, tmp_path)


def test_errors_are_told_without_addresses_and_folders(parts: dict[str, ModuleType]) -> None:
    text = "could not open 'some/place/x.gguf', https://host/simple/ or /var/lib/thing/file.so: no"
    assert parts["environments"].public(text) == "could not open 'some/place/x.gguf', <address> or file.so: no"


# --- figures --------------------------------------------------------------------------------


def runs(*first: float, total: float = 0.0, tokens: int = 1) -> list[dict[str, float]]:
    return [{"first_ms": ms, "total_ms": total or ms, "prompt_tokens": 40, "tokens": tokens} for ms in first]


def answer(total: float, **more: Any) -> dict[str, Any]:
    told = {"status": "answered", "tokens": 60, "forced": 30, "drafted": 10, "steps": 20, "decode_ms": 600.0}
    return {"total_ms": total, **told, **more}


def round_of(factor: float = 1.0) -> dict[str, Any]:
    """A round in which the machine was `factor` times slower for everybody."""
    project = {
        "warm": [answer(1000 * factor), answer(1200 * factor)],
        "cold": [answer(2000 * factor), answer(2200 * factor)],
        "plain": [answer(1800 * factor, decode_ms=1200.0)] * 2,
        "identical": 2,
        "together": {"asks": 8, "alone_s": 8.0, "together_s": 2.0},
    }
    own = {
        "first/warm/5": runs(100 * factor, 110 * factor),
        "first/cold/5": runs(1500 * factor),
        "first/tail/5": runs(70 * factor),
        "first/warm/20": runs(120 * factor),
        "decode": runs(100 * factor, total=100 * factor + 630 * factor, tokens=64),
    }
    machine = {"read_bytes_s": 2e10, "read_in_cache_bytes_s": 3e10, "fp32_flop_s": 2e11, "bf16_flop_s": 1e11}
    asked = {
        "decode_bytes": 2e8,
        "weights_bytes": 5e8,
        "flop_token": 2e8,
        "flop_head": 5e7,
        "context": 1250,
        "flop_pair": 8e4,
    }
    return {
        "factform": {
            "runs": own,
            "project": project,
            "settings": {"dtype": "float32+int8"},
            "roofline": {**machine, **asked, "int8_op_s": None},
        },
        "openvino": {
            "runs": {
                "first/other/5": runs(1400 * factor),
                "decode": runs(1400 * factor, total=2030 * factor, tokens=64),
            }
        },
        "llamacpp": {"runs": {"first/other/5": runs(4000 * factor)}},
        "haystack": {"runs": {"answer/same": [{"total_ms": 5500 * factor}]}},
    }


def test_spread_is_that_of_numpy(parts: dict[str, ModuleType]) -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    got = parts["summary"].spread(values)
    wanted = np.percentile(values, [50, 0, 25, 75])
    assert (got.median, got.low, got.q1, got.q3) == pytest.approx(tuple(wanted))
    assert got.n == 6
    assert parts["summary"].spread([2.0]).q3 == 2.0
    with pytest.raises(ValueError, match="no run"):
        parts["summary"].spread([])


def test_ratios_are_taken_within_a_round(parts: dict[str, ModuleType]) -> None:
    rounds = [round_of(), round_of(3.0)]
    goals = {goal["name"]: goal for goal in parts["summary"].goals(rounds, (5,), 20)}
    warm = goals["first token, 5 passages warm: faster than a peer"]
    assert warm["measured"] == warm["low"] == warm["high"] == pytest.approx(1400 / 105)
    assert warm["against"] == "openvino"
    assert warm["met"]
    assert goals["first token, 5 passages warm: of the tail alone"]["measured"] == pytest.approx(105 / 70)
    assert goals["first token, 5 passages cold: of a peer's"]["met"]
    assert goals["first token, growth from 5 to 20"]["measured"] == pytest.approx(120 / 105)
    assert goals["tokens a second: of a peer's"]["measured"] == pytest.approx(1.0)
    assert goals["quoted answers: tokens a step"]["measured"] == 3.0
    assert goals["quoted answers: identical to plain greedy"]["met"]
    # The pipeline was asked one question, so the first answer alone is compared with it.
    assert goals["whole answer, passages warm: faster than a pipeline"]["measured"] == pytest.approx(5.5)
    assert not goals["whole answer, passages cold: faster than a pipeline"]["met"]
    assert goals["8 asks at once: throughput of one after another"]["measured"] == 4.0


def test_what_was_not_measured_is_said(parts: dict[str, ModuleType]) -> None:
    goals = parts["summary"].goals([{}], (5, 10), 20)
    assert len(goals) == 13
    assert {goal["note"] for goal in goals} == {"not measured"}
    assert {goal["met"] for goal in goals} == {None}
    held = round_of()
    held["factform"]["project"]["together"] = {"asks": 8, "alone_s": 8.0, "problem": "ValueError: no"}
    assert parts["summary"].goals([held], (5,), 20)[-1]["note"] == "ValueError: no"


def test_limits_divide_what_was_reached_by_what_is_possible(parts: dict[str, ModuleType]) -> None:
    got = parts["summary"].limits([round_of()], 5, 250)
    assert got["decode_tokens_s_at_bandwidth"] == pytest.approx(100)
    assert got["decode_share"] == pytest.approx(1.0)  # 63 tokens in 630 ms
    # 40 tokens of 2e8 operations, each attending to 1250 others at 8e4, and the head, all at 2e11 a second, take longer
    # than 5e8 bytes at 2e10.
    assert got["tail_ms_at_limit"] == pytest.approx(60.25)
    assert got["tail_share"] == pytest.approx(60.25 / 70)
    # 1250 tokens of 2e8 operations, each attending to half of 250 others.
    assert got["cold_share"] == pytest.approx(1312.5 / 1500)
    assert parts["summary"].limits([{}], 5, 250) == {}


def test_limits_in_8_bit_count_both_digits_and_attention_in_fp32(parts: dict[str, ModuleType]) -> None:
    held = round_of()
    held["factform"]["settings"]["dtype"] = "int8"
    held["factform"]["roofline"]["int8_op_s"] = 8e11
    got = parts["summary"].limits([held], 5, 250)
    assert got["tail_ms_at_limit"] == pytest.approx((40 * 2e8 + 5e7) / 4e8 + 40 * 1250 * 8e4 / 2e8)
    assert got["cold_ms_at_limit"] == pytest.approx(1250 * (2e8 / 4e8 + 125 * 8e4 / 2e8))


def test_figures_are_pooled_over_rounds(parts: dict[str, ModuleType]) -> None:
    rounds = [round_of(), round_of(3.0)]
    figures = parts["summary"].measured(rounds, (5,), 20)
    pooled = [100.0, 110.0, 300.0, 330.0]
    assert figures["first token, 5 passages, ms"]["factform, warm"]["median"] == statistics.median(pooled)
    assert set(figures["whole answer, ms"]) == {"factform, warm", "factform, cold", "haystack, same settings"}


def report_of(parts: dict[str, ModuleType]) -> dict[str, Any]:
    speed = parts["speed"]
    rounds = [round_of()]
    for peer in rounds[0].values():
        peer |= {
            "versions": {"engine": "1.0"},
            "settings": {**peer.get("settings", {}), "probe_ms": {"float32": 12.34}},
        }
    rounds[0]["factform"]["project"]["profile"] = {
        "total_ms": 1000.0,
        "stages_ms": {"forward": 700.0, "read evidence": 290.0, "not in any stage": 10.0},
        "calls": {"forward": 20, "read evidence": 1},
        "missing": [],
    }
    return {
        **speed.reported(rounds, {"llamaindex": "not installed: exit code 1: no match"}),
        "rounds": 1,
        "environment": {
            "threads": 2,
            "cores": 2,
            "cpu": "A CPU",
            "time": "2026-11-22T10:00:00Z",
            "commit": "0123456789abcd",
        },
        "asked": {"tokens": 250, "source": "the project's documentation and examples", "sha256": "f" * 64},
        "seconds": 600.4,
    }


def test_the_table_of_a_small_report(parts: dict[str, ModuleType]) -> None:
    text = parts["table"].render(json.loads(json.dumps(report_of(parts))))
    lines = text.splitlines()
    assert (
        "| first token, 5 passages warm: faster than a peer | >= 10x | 13.3 | 13.3 to 13.3 | openvino | yes |" in lines
    )
    assert "| first token, 10 passages warm: of the tail alone | <= 2x | – | not measured | – | – |" in lines
    assert "| factform, warm | 105 | 100 | 102 to 108 | 2 |" in lines
    assert "| forward | 700 | 70.0 % | 20 |" in lines
    assert "| reading memory, far beyond the cache | 20.0 GB/s |" in lines
    assert "| llamaindex | not measured | not installed: exit code 1: no match |" in lines
    assert "| haystack | engine 1.0 | probe_ms: float32 12.3 |" in lines
    assert lines[-1] == (
        "1 rounds, every peer once in each, 2 threads on 2 cores of A CPU, 2026-11-22, commit 0123456789ab, "
        "600 s in all. Passages of 250 tokens from the project's documentation and examples, SHA-256 ffffffffffff."
    )


def test_render_prints_a_stored_report(
    parts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(report_of(parts)))
    assert parts["speed"].main(["--render", "--out", str(tmp_path / "speed.json")]) == 0
    assert "| factform, warm | 105 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (12345.6, "12,346"), (99.94, "99.9"), (9.876, "9.88"), (-0.5, "-0.50")]
)
def test_numbers_are_written_short(parts: dict[str, ModuleType], value: float | None, shown: str) -> None:
    assert parts["table"].number(value) == shown
