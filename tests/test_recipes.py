"""The recipes of `docs/extending.md`, followed in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("actors", "api", "benchmarks", "docs", "examples", "reileta", "tests", "pyproject.toml")

_STEP = re.compile(r"^\d\. `([^`]+)`", re.M)
_BLOCK = re.compile(r"^ *```(?:python|sql|markdown)\n(.*?)^ *```", re.M | re.S)


class Copy:
    """A copy of the repository, in which recipes are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy(source, folder / name)

    def create(self, path: str, code: str) -> None:
        """A new file."""
        file = self.folder / path
        if "NNNN" in file.name:
            number = len([*file.parent.glob("*.sql")]) + 1
            file = file.with_name(file.name.replace("NNNN", f"{number:04}"))
        assert not file.exists()
        if path.startswith("tests/"):
            code = f"from __future__ import annotations\n\n{code}"
        file.write_text(code)

    def append(self, path: str, code: str) -> None:
        """Code at the end of a file, with its imports at the top."""
        self.put(path, None, code)

    def put(self, path: str, anchor: str | None, code: str, *, instead: bool = False) -> None:
        """Code before a text that occurs once in the file (None: at the end), or in its place."""
        file = self.folder / path
        imports = re.findall(r"^(?:from|import) .*\n", code, re.M)
        code = re.sub(r"^(?:from|import) .*\n", "", code, flags=re.M).strip("\n")
        text = file.read_text()
        if anchor is None:
            text = f"{text}\n\n{code}\n"
        else:
            assert text.count(anchor) == 1, f"{path}: {anchor}"
            text = text.replace(anchor, code if instead else f"{code}\n{anchor}")
        first = "from __future__ import annotations\n"
        file.write_text(text.replace(first, first + "".join(imports), 1))

    def test(self, *tests: str) -> None:
        """Runs tests of the copy."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *tests],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def recipe(title: str) -> dict[str, str]:
    """The code of a recipe, by the file that it goes into."""
    document = (ROOT / "docs" / "extending.md").read_text()
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", document, re.M | re.S)
    starts = [*_STEP.finditer(section)]
    ends = [*(one.start() for one in starts[1:]), len(section)]
    found: dict[str, str] = {}
    for step, end in zip(starts, ends, strict=True):
        block = _BLOCK.search(section, step.end(), end)
        if block is not None:
            found[step[1]] = textwrap.dedent(block[1])
    return found


@pytest.mark.slow
@pytest.mark.database
def test_the_recipes_work(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    tests = [
        follow_setting(copy),
        follow_endpoint(copy),
        follow_table(copy),
        follow_command(copy),
        follow_event(copy),
        follow_resource_type(copy),
        follow_own_table(copy),
    ]
    copy.test(*tests)


def follow_setting(copy: Copy) -> str:
    code = recipe("A setting")
    settings = textwrap.indent(code.pop("reileta/settings.py"), "    ")
    copy.put("reileta/settings.py", "    # Instances\n", settings)
    row = code.pop("docs/operating.md").strip()
    copy.put("docs/operating.md", "| `--empty-instance-s`", row)
    assert not code
    return (
        "tests/test_house.py::test_operating_a_server_tells_of_every_setting_and_its_default"
        "[welcome]"
    )


def follow_endpoint(copy: Copy) -> str:
    code = recipe("An HTTP endpoint")
    copy.append("reileta/protocol/views/server.py", code.pop("reileta/protocol/views/server.py"))
    file = "api/http/registry/welcome.py"
    copy.create(file, code.pop(file))
    imported = "from api.http.registry.welcome import welcome_routes\n"
    copy.put(
        "api/app.py",
        "        _Subject(server_routes(deps), _ETA | _REIL),\n",
        f"{imported}        _Subject(welcome_routes(deps), _ETA),",
    )
    copy.append("docs/protocol.md", code.pop("docs/protocol.md"))
    (test,) = code
    copy.create(test, code[test])
    return test


def follow_table(copy: Copy) -> str:
    code = recipe("A database table")
    test = "tests/reileta/store/test_notes.py"
    for path in ("reileta/store/migrations/NNNN_notes.sql", "reileta/store/notes.py", test):
        copy.create(path, code.pop(path))
    assert not code
    store = "reileta/store/__init__.py"
    imported = "from reileta.store.notes import Notes\n"
    copy.put(store, "    follows: Follows\n", f"{imported}    notes: Notes")
    copy.put(store, "            follows=Follows(", "            notes=Notes(database, clock),")
    copy.put("reileta/store/read_cache.py", '"services", ', '"notes", "services", ', instead=True)
    return test


def follow_command(copy: Copy) -> str:
    code = recipe("A WebSocket command")
    for path, text in code.items():
        copy.append(path, text)
    assert len(code) == 4
    return "tests/api/ws/registry/test_connection.py::test_whoami_names_the_user"


def follow_event(copy: Copy) -> str:
    code = recipe("An event")
    entry = code.pop("api/ws/registry/events.py")
    events = "api/ws/registry/events.py"
    last = "    Event(\n        name=events.INSTANCE_RESTORED,"
    copy.put(events, last, entry.rstrip() + ",")
    notifications = "actors/instance/notifications.py"
    branch = textwrap.indent(code.pop(notifications), "            ")
    imports = "from reileta.protocol.views.instance import RenamedView\n"
    branch = imports + branch.replace(f"            {imports}", "")
    place = "            case Updated() | Closed():\n"
    place += "                pass  # only those who watch the object are concerned"
    copy.put(notifications, place, branch, instead=True)
    for path, text in code.items():
        copy.append(path, text)
    assert len(code) == 3
    return "tests/actors/instance/test_moderation.py::test_those_inside_get_a_new_title"


def follow_resource_type(copy: Copy) -> str:
    code = recipe("A resource type")
    types = "reileta/rules/resource/types.py"
    built_in = "BUILT_IN: Final = ResourceTypes("
    copy.put(types, built_in, code.pop(types) + "\n")
    copy.put(types, built_in, f"{built_in}Checklist(), ", instead=True)
    (test,) = code
    copy.append(test, code[test])
    return f"{test}::test_a_checklist_is_a_list_of_strings"


def follow_own_table(copy: Copy) -> str:
    code = recipe("A resource type with its own table")
    test = "tests/reileta/store/test_checklists.py"
    for path in ("reileta/store/migrations/NNNN_checklists.sql", test):
        copy.create(path, code.pop(path))
    storage = "reileta/store/resource_storage.py"
    mapping = "STORAGES: Final[Mapping[str, ResourceStorage]]"
    copy.put(storage, mapping, code.pop(storage) + "\n")
    assert not code
    made = "WORLD: WorldStorage()"
    copy.put(storage, made, f'{made}, "checklist": ChecklistStorage()', instead=True)
    copy.put(
        "reileta/store/read_cache.py", '"services", ', '"checklists", "services", ', instead=True
    )
    copy.put("reileta/settings.py", "    # Instances\n", "    checklists_per_user: int = 500")
    quotas = "reileta/store/quotas.py"
    copy.put(quotas, 'Literal["worlds", ', 'Literal["checklists", "worlds", ', instead=True)
    copy.put(quotas, "    services: int = 100\n", "    checklists: int = 500")
    copy.put(
        quotas,
        "            services=settings.",
        "            checklists=settings.checklists_per_user,",
    )
    return test
