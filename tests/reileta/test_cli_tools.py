"""`reileta trace` and `reileta replay`, as they are called."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from reileta import cli
from reileta.diagnostics.recording import MAGIC
from reileta.diagnostics.replay import digest
from tests.reileta.diagnostics.test_trace_reader import JOIN, OTHER, TRACE
from tests.reileta.instances import visitor
from tests.reileta.recordings import BEGAN, MemoryRecording, taped


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(JOIN) + b"\n")
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    tape = MemoryRecording()
    instance = taped(tape)
    tape.received("AddMember", 7)
    instance.join(visitor(1), BEGAN)
    tape.end(state=digest(instance))
    path = tmp_path / "i_1.1.1.recording"
    path.write_bytes(tape.data)
    return path


def reileta(*arguments: str | Path) -> int:
    return cli.main([str(one) for one in arguments])


def test_a_trace_from_a_file(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reileta("trace", TRACE.upper(), "--log", log) == 0
    said = capsys.readouterr()
    assert "`- session/s_1: Join #41" in said.out
    assert said.err == ""
    assert reileta("trace", TRACE, "--log", log, "--mermaid") == 0
    assert capsys.readouterr().out.startswith("sequenceDiagram\n")


def test_a_trace_from_standard_input(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.read_bytes())))
    assert reileta("trace", TRACE) == 0
    assert "Join #41" in capsys.readouterr().out


def test_a_terminal_is_not_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert reileta("trace", TRACE) == 2
    assert "--log" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["x", "deadbeef", TRACE + TRACE, ""])
def test_what_is_no_trace_id_is_wrong_use(
    wrong: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reileta("trace", wrong, "--log", log) == 2
    assert capsys.readouterr().err == "reileta: TRACE_ID: must be 16 hexadecimal digits\n"


def test_a_trace_that_is_not_there(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reileta("trace", OTHER, "--log", log) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"reileta: no event of trace {OTHER} in 6 lines")


def test_what_could_not_be_read_is_said_beside_the_tree(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write_bytes(b"Starting...\n" + log.read_bytes() + b'{"time":"2026')
    assert reileta("trace", TRACE, "--log", log) == 0
    said = capsys.readouterr()
    assert "Join #41" in said.out
    assert said.err == (
        "reileta: 1 of 8 lines are not JSON; skipped\n"
        "reileta: the last line is truncated; skipped\n"
    )


@pytest.mark.parametrize("command", [("trace", TRACE, "--log"), ("replay",)])
def test_files_that_can_t_be_read(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reileta(*command, tmp_path / "none") == 1
    assert (
        capsys.readouterr().err
        == f"reileta: can't read {tmp_path}/none: No such file or directory\n"
    )
    assert reileta(*command, tmp_path) == 1
    assert capsys.readouterr().err == f"reileta: can't read {tmp_path}: Is a directory\n"


def test_a_replay_and_its_steps(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reileta("replay", recording) == 0
    short = capsys.readouterr().out
    assert "the replay matches the recording\n" in short
    assert "#1" not in short
    assert reileta("replay", recording, "--steps") == 0
    steps = capsys.readouterr().out
    assert "\n#1 +0.000 s AddMember, message 7\n" in steps
    assert reileta("replay", recording, "--steps") == 0
    assert capsys.readouterr().out == steps


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "this is not a recording of Reileta"),
        (b"reileta recording 9\n", "its format has version 9; this Reileta reads version 1"),
        (MAGIC, "its first record is missing"),
    ],
)
def test_what_is_no_recording(
    data: bytes, said: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.write_bytes(data)
    assert reileta("replay", recording) == 1
    assert capsys.readouterr().err == f"reileta: can't replay {recording}: {said}\n"


def test_a_terminal_of_another_encoding_gets_what_it_can_show(tmp_path: Path) -> None:
    tape = MemoryRecording()
    instance = taped(tape)
    instance.join(visitor(1), BEGAN)
    instance.speak("p_1", "日本", None, None, b"1", BEGAN)
    path = tmp_path / "x.recording"
    path.write_bytes(tape.data)
    done = subprocess.run(
        [sys.executable, "-m", "reileta", "replay", str(path)],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'key="\\u65e5\\u672c"' in done.stdout


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    tape = MemoryRecording()
    instance = taped(tape)
    instance.join(visitor(1), BEGAN)
    for number in range(5000):
        tape.received("SendData", number)
        instance.speak("p_1", None, None, None, b"x" * 50, BEGAN)
    path = tmp_path / "x.recording"
    path.write_bytes(tape.data)
    with subprocess.Popen(
        [sys.executable, "-m", "reileta", "replay", str(path), "--steps"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
