"""The picture: what is drawn, and that it can be drawn whatever is missing."""

from __future__ import annotations

from pathlib import Path

from matplotlib.collections import LineCollection
from PIL import Image

from benchmarks.chart import COLORS, apart, bars, draw, overloaded, points, save, thousands
from benchmarks.report import Report, RoomRun
from tests.benchmarks.reports import full_report, load_result


def empty() -> Report:
    return Report(when="now", machine="here", pinned=False, quick=True, servers=[])


def test_every_run_is_a_point_and_those_given_up_are_not() -> None:
    lines = points(full_report())
    assert [players for players, _ in lines["Reileta"]] == [100, 200, 300, 400]
    assert lines["Node ws"] == [(100, 717), (200, 2900)]


def test_a_run_that_did_not_keep_up_is_marked() -> None:
    assert overloaded(full_report()) == {"Node ws": [200]}


def test_a_run_without_latency_is_no_point() -> None:
    report = empty()
    report.rooms.append(RoomRun("Bun", 100, load_result(p99_ms=None)))
    assert points(report) == {}


def test_bars_go_from_most_to_least_and_say_when_there_is_more() -> None:
    assert [(name, label) for name, _, label in bars(full_report())] == [
        ("Bun", "≥ 3.20 M"),
        ("Reileta", "≥ 3.19 M"),
        ("Node ws", "230 k"),
    ]


def test_figures_as_people_say_them() -> None:
    assert [thousands(value) for value in (12.0, 230_400.0, 1_794_000.0)] == [
        "12", "230 k", "1.79 M",
    ]  # fmt: skip


def test_the_latency_axis_is_logarithmic_and_names_the_servers() -> None:
    left, right = draw(full_report()).axes
    assert left.get_yscale() == "log"
    said = " ".join(text.get_text() for text in left.texts)
    assert "Reileta: 25.0 ms" in said
    assert "Node ws: can't keep up" in said
    assert [text.get_text() for text in right.texts] == ["≥ 3.20 M", "≥ 3.19 M", "230 k"]


def test_names_that_would_overlap_go_apart() -> None:
    assert apart([5.0, 1.0, 1.1, 1.2], 1.0) == [5.0, 1.0, 2.0, 3.0]
    assert apart([3.0, 1.0], 1.0) == [3.0, 1.0]


def test_the_line_at_100_ms_ends_before_the_names() -> None:
    report = full_report()
    report.rooms.append(RoomRun("Socket.IO", 400, load_result(400, p99_ms=100.0)))
    figure = draw(report)
    figure.canvas.draw()
    left = figure.axes[0]
    (line,) = (one for one in left.collections if isinstance(one, LineCollection))
    end, height = left.transData.transform((400, 100))
    names = [text for text in left.texts if text.get_text().split(":")[0] in COLORS]
    assert len(names) == 4
    boxes = [text.get_window_extent() for text in names]
    assert all(box.x0 > end or not box.y0 < height < box.y1 for box in boxes)
    assert all(text.get_bbox_patch() and text.zorder > line.zorder for text in names)
    assert not any(one.overlaps(two) for one in boxes for two in boxes if one is not two)


def test_an_empty_report_says_that_nothing_was_measured() -> None:
    for axes in draw(empty()).axes:
        assert "not measured" in [text.get_text() for text in axes.texts]


def test_it_is_written_as_png(tmp_path: Path) -> None:
    save(full_report(), tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
