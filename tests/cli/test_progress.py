"""Progress in logs: a line now and then, with the time left."""

from __future__ import annotations

from factform.cli.progress import lines


def test_long_stages_get_lines_and_short_ones_none() -> None:
    now, written = [0.0], list[str]()
    report = lines(lambda: now[0], written.append)
    for done in range(1, 41):
        now[0] += 1.0
        report("train", done, 40, f"loss {1 / done:.2f}")
    report("search", 1, 1, "")
    assert [line.split(" ")[1] for line in written] == ["11/40", "21/40", "31/40", "40/40"]
    assert written[1].startswith("train 21/40 · 20 s · 19 s left · loss 0.05")
    assert "left" not in written[-1]


def test_a_stage_may_come_again() -> None:
    now, written = [0.0], list[str]()
    report = lines(lambda: now[0], written.append)
    for _ in range(2):
        report("evaluate", 1, 2, "")
        now[0] += 3.0
        report("evaluate", 2, 2, "")
    assert written == ["evaluate 2/2 · 3 s\n"] * 2
