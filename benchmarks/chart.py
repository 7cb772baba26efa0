"""Chart of a run: latency by players, and the highest rate of each server."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.report import Report

COLORS: Final = {
    "Reileta": "#d6336c",
    "Node ws": "#2b8a3e",
    "Socket.IO": "#868e96",
    "Bun": "#1971c2",
}
_OTHER: Final = "#495057"


def points(report: Report) -> dict[str, list[tuple[int, float]]]:
    """(players, p99 in ms) of each server's runs."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for run in report.rooms:
        if run.result is not None and run.result.latency is not None:
            line = lines.setdefault(run.server, [])
            line.append((run.players, run.result.latency.p99_ms))
    return lines


def overloaded(report: Report) -> dict[str, list[int]]:
    """By server, the numbers of players at which it did not sustain the rate."""
    players: dict[str, list[int]] = {}
    for run in report.rooms:
        if run.result is not None and not run.result.sustained:
            players.setdefault(run.server, []).append(run.players)
    return players


def bars(report: Report) -> list[tuple[str, float, str]]:
    """(server, deliveries per second, label), highest first."""
    rows = sorted(report.sustained, key=lambda row: -row.per_s)
    return [
        (row.server, row.per_s, f"{'≥ ' if row.at_least else ''}{thousands(row.per_s)}")
        for row in rows
    ]


def near(one: tuple[int, float], other: tuple[int, float]) -> bool:
    """Whether labels at two points would overlap. Then the second goes a line lower."""
    return one[0] == other[0] and abs(math.log10(one[1] / other[1])) < 0.15


def thousands(value: float) -> str:
    """1,790,000 as `1.79 M`, 230,000 as `230 k`."""
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e3 else f"{value:.0f}"


def draw(report: Report) -> Figure:
    """Draws the figure. A panel without data says so."""
    figure = Figure(figsize=(12, 5.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _latency(left, report)
    _sustained(right, report)
    figure.suptitle(
        "One room: every player sends 20 messages of 150 bytes per second to all others",
        fontsize=13,
        fontweight="bold",
    )
    figure.supxlabel(
        f"{report.machine} · {report.when} · server on one core, load on the other",
        fontsize=8,
        color="#868e96",
    )
    return figure


def save(report: Report, path: Path) -> None:
    """Writes the figure as PNG."""
    draw(report).savefig(path, format="png")


def _latency(axes: Axes, report: Report) -> None:
    lines = points(report)
    axes.set_title("Message latency (lower is better)", fontsize=11)
    axes.set_xlabel("players in the room")
    axes.set_ylabel("p99 latency (ms, log scale)")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.grid(visible=True, which="major", axis="y", color="#e9ecef")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(100, color="#adb5bd", linestyle=":", linewidth=1)
    axes.annotate(
        "100 ms: people begin to notice", (1, 100), (-4, 3), fontsize=8, color="#868e96",
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
    )  # fmt: skip
    beyond = overloaded(report)
    placed: list[tuple[int, float]] = []
    for server, line in lines.items():
        color = COLORS.get(server, _OTHER)
        players, p99 = zip(*line, strict=True)
        axes.plot(players, p99, marker="o", linewidth=2.2, color=color)
        crosses = [point for point in line if point[0] in beyond.get(server, [])]
        if crosses:
            at, ms = zip(*crosses, strict=True)
            axes.scatter(at, ms, marker="X", s=140, color=color, zorder=3)
        state = "can't keep up" if line[-1] in crosses else f"{p99[-1]:,.1f} ms"
        below = sum(near(line[-1], other) for other in placed)
        placed.append(line[-1])
        axes.annotate(
            f"{server}: {state}", line[-1], (9, -3 - 13 * below), color=color, fontsize=9.5,
            textcoords="offset points", fontweight="bold",
        )  # fmt: skip
    axes.margins(x=0.05, y=0.12)
    counts = sorted({run.players for run in report.rooms})
    if counts:
        axes.set_xticks(counts)
        axes.set_xlim(right=counts[-1] + (counts[-1] - counts[0] or 1) * 0.34)
    if not lines:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")


def _sustained(axes: Axes, report: Report) -> None:
    rows = bars(report)
    axes.set_title("Highest sustained rate (deliveries per second)", fontsize=11)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    if not rows:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
        return
    names = [name for name, _, _ in rows]
    drawn = axes.barh(
        names, [value for _, value, _ in rows], color=[COLORS.get(name, _OTHER) for name in names]
    )
    axes.bar_label(drawn, [label for _, _, label in rows], padding=4, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.22)
