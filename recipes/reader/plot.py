"""The chart of how well the confidence of an answer holds, from a report that evaluate.py wrote.

python recipes/reader/plot.py --report benchmarks/results/evidence.json --out docs/images/confidence.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

BLUE, GREY = "#1f5fa8", "#8a8a8a"


def reliability(axes: Axes, report: dict[str, Any]) -> None:
    """Share right against probability, a point for each tenth of the answers."""
    bins = report["reliability"]
    right = [b["right"] for b in bins]
    spread = [[b["right"] - b["low"] for b in bins], [b["high"] - b["right"] for b in bins]]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="as it should be")
    axes.errorbar(
        [b["probability"] for b in bins], right, spread, fmt="o", color=BLUE, capsize=3, label="measured, 95 % interval"
    )
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"Reliability: error {report['expected_calibration_error']:.3f}, n={report['n']:,}")
    axes.legend(loc="upper left", frameon=False)


def curve(axes: Axes, report: dict[str, Any]) -> None:
    """Share of the answers that are right against the share of questions answered, for rising limits."""
    points = [p for p in report["curve"] if p["precision"] is not None]
    coverage = [p["coverage"] for p in points]
    axes.plot(coverage, [p["precision"] for p in points], color=BLUE, marker="o", markersize=3)
    axes.fill_between(coverage, [p["low"] for p in points], [p["high"] for p in points], color=BLUE, alpha=0.15)
    for point in points:
        if round(point["limit"] * 100) in (0, 25, 50, 75, 90):
            at = (point["coverage"], point["precision"])
            axes.annotate(f"{point['limit']:.2f}", at, xytext=(4, 6), textcoords="offset points", fontsize=8)
    axes.set(xlabel="share of questions answered", ylabel="share of answers right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title("What a limit on the confidence gives")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = json.loads(args.report.read_text("utf-8"))["confidence"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    reliability(left, report)
    curve(right, report)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
