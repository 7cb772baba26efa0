"""Chart of a run: latency by players, and the highest rate of each server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
LINE_SHARE: Final = 0.05
"""The height of a line of text, as a share of the axis."""


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


def apart(values: Sequence[float], least: float) -> list[float]:
    """The values, each moved up as little as needed to be `least` from the next lower one."""
    moved = list(values)
    lowest = -math.inf
    for place in sorted(range(len(values)), key=values.__getitem__):
        moved[place] = lowest = max(values[place], lowest + least)
    return moved


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
    counts = sorted({run.players for run in report.rooms})
    beyond = overloaded(report)
    for server, line in lines.items():
        color = COLORS.get(server, _OTHER)
        players, p99 = zip(*line, strict=True)
        axes.plot(players, p99, marker="o", linewidth=2.2, color=color)
        crosses = [point for point in line if point[0] in beyond.get(server, [])]
        if crosses:
            at, ms = zip(*crosses, strict=True)
            axes.scatter(at, ms, marker="X", s=140, color=color, zorder=3)
    axes.margins(x=0.05, y=0.12)
    if counts:
        axes.set_xticks(counts)
        axes.set_xlim(right=counts[-1] + (counts[-1] - counts[0] or 1) * 0.34)
        # It ends where the names of the servers begin, and its own text is on the left.
        axes.hlines(
            100, axes.get_xlim()[0], counts[-1], colors="#adb5bd", linestyles=":", lw=1, zorder=1
        )
        axes.annotate(
            "100 ms: people begin to notice", (0, 100), (4, 3), fontsize=8, color="#868e96",
            xycoords=("axes fraction", "data"), textcoords="offset points",
        )  # fmt: skip
    _names(axes, lines, beyond)
    if not lines:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")


def _names(
    axes: Axes, lines: Mapping[str, list[tuple[int, float]]], beyond: Mapping[str, list[int]]
) -> None:
    """Writes each server's name behind its last point, none over another one."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    ends = [line[-1] for line in lines.values()]
    heights = apart([math.log10(ms) for _, ms in ends], (high - low) * LINE_SHARE)
    for (server, (players, ms)), height in zip(zip(lines, ends, strict=True), heights, strict=True):
        over = players in beyond.get(server, [])
        state = "can't keep up" if over else f"{ms:,.1f} ms"
        axes.annotate(
            f"{server}: {state}", (players, 10**height), (9, -3), fontsize=9.5,
            color=COLORS.get(server, _OTHER), textcoords="offset points", fontweight="bold",
            zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


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
