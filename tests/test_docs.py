"""`docs/protocol.md` and `docs/sessions.md` say all that the server does: nothing is missing, and
nothing is made up."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from quart_trio import QuartTrio

import api.errors as statuses
import reileta.errors as errors
from actors.hub.actor import SUBSCRIPTIONS
from api import rate_limits
from api.app import ReiletaApp, create_app
from api.errors import status_of
from api.http.registry.images import PICTURES
from api.openapi.document import resolved
from api.ws.declarations import ALL
from api.ws.gateway import Gateway, gateway_blueprint
from api.ws.message_rate import FRAMES_PER_MESSAGE
from api.ws.registry.commands import COMMANDS
from api.ws.registry.events import EVENTS
from api.ws.session.routes import session_blueprint
from reileta.cli_options import flag
from reileta.federation.remote_reads import PEER
from reileta.protocol.close_codes import CloseCode, Meaning
from reileta.rules.instance.instance import TO_LIMIT
from reileta.rules.instance.retained import KEY_LIMIT
from reileta.rules.instance.state import InstanceLimits
from reileta.rules.ratelimit import Rate
from reileta.settings import Settings
from reileta.store import Store
from tests.api.fakes import FakeNode
from tests.conftest import ManualClock
from tests.test_house import ROOT

TEXT = "\n".join((ROOT / "docs" / page).read_text() for page in ("protocol.md", "sessions.md"))


@functools.cache
def sections() -> dict[str, str]:
    """What stands under each heading, with the headings below it."""
    found: dict[str, str] = {}
    headings = list(re.finditer(r"^(#+) (.+)$", TEXT, re.MULTILINE))
    for index, heading in enumerate(headings):
        level = len(heading[1])
        after = (one.start() for one in headings[index + 1 :] if len(one[1]) <= level)
        title = heading[2]
        assert title not in found, f"two headings are {title!r}"
        found[title] = TEXT[heading.end() : next(after, len(TEXT))]
    return found


def rows(section: str) -> list[list[str]]:
    """The cells of the tables of a section."""
    lines = re.findall(r"^\|(.*)\|$", sections()[section], re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def quoted(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`]*)`", text))


# Errors ------------------------------------------------------------------------------------------


def every_error() -> Iterator[type[errors.ReiletaError]]:
    waiting: list[type[errors.ReiletaError]] = [errors.ReiletaError]
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if one.__module__ in (errors.__name__, statuses.__name__):
            yield one


def test_the_table_of_errors_is_that_of_the_code() -> None:
    coded = {(str(one.code), one.message, str(status_of(one))) for one in every_error()}
    told = [(row[0], row[1], row[2]) for row in rows("Error codes") if row[0].isdigit()]
    assert len(told) == len(set(told))
    assert set(told) == coded
    assert [int(code) for code, _, _ in told] == sorted(int(code) for code, _, _ in told)


# The WebSocket -----------------------------------------------------------------------------------


def constants(module: Any) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and type(value) is str}


def headings_in(section: str) -> set[str]:
    return set(re.findall(r"^#### `([^`]+)`", sections()[section], re.MULTILINE))


def test_every_command_has_its_section_and_no_other() -> None:
    assert headings_in("Commands") == COMMANDS.names


def test_every_event_has_its_section_and_its_row() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows("Events")[2:] if len(row) == 4}
    assert told == {event.name: event.group or "" for event in EVENTS}
    assert headings_in("Events") == EVENTS.names
    assert quoted(sections()["Subscriptions"]) >= {*EVENTS.groups, ALL}


@pytest.mark.parametrize(
    ("section", "meanings"),
    [
        ("Close codes", {code: code.registry for code in CloseCode}),
        ("Close codes of the session API", {code: code.session for code in CloseCode}),
    ],
)
def test_every_close_code_has_its_row_and_no_other(
    section: str, meanings: dict[CloseCode, Meaning | None]
) -> None:
    told = [int(row[0]) for row in rows(section) if row[0].isdigit()]
    assert told == sorted(code for code, meaning in meanings.items() if meaning is not None)


def examples() -> list[str]:
    return re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("text", examples())
def test_examples_are_json_and_of_this_protocol(text: str) -> None:
    whole = re.sub(r"(?<=[\[{]) ?…|, …(?=[,}\]])", "", text)  # … stands for what is left out
    rest = whole.strip()
    decoder = json.JSONDecoder()
    while rest:
        message, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()
        if "command" in message:
            assert message["command"] in COMMANDS.names | EVENTS.names
        if "error" in message and "message" in message["error"]:
            known = {(one.code, one.message) for one in every_error()}
            assert (message["error"]["code"], message["error"]["message"]) in known


# HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
async def app(store: Store, clock: ManualClock) -> ReiletaApp:
    node: Any = FakeNode(store, clock)
    app = create_app(node)
    gateway = Gateway(node, app.auth)
    app.register_blueprint(gateway_blueprint(gateway))
    app.register_blueprint(session_blueprint(gateway, app.limits))
    return app


def endpoint(method: str, path: str) -> str:
    """`GET /api/users/:id` for `/api/users/<ref>` and `/api/users/{ref}`."""
    named = re.sub(r"[<{](?:[a-z]+:)?([a-z_]+)[>}]", r":\1", path)
    return f"{method.upper()} {named.replace(':ref', ':id')}"


async def test_every_endpoint_has_its_section_and_no_other(app: QuartTrio) -> None:
    served = {
        endpoint(method, rule.rule.removesuffix("@<server>"))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}
    }
    told = set(re.findall(r"^###+ `([A-Z]+ /[^`]*)`", TEXT, re.MULTILINE))
    mentioned = {one for one in quoted(TEXT) if re.match(r"[A-Z]+ /", one)}
    assert served - mentioned == set()
    assert told - served == set()
    assert served - told <= {"GET /", "GET /docs/docs.css"}


async def test_every_endpoint_tells_of_its_fields_and_errors(app: QuartTrio) -> None:
    described = json.loads(await (await app.test_client().get("/openapi.json")).get_data())
    schemas = described["components"]["schemas"]
    shared = {4, 16, 100, 101, 102, 103, 104, 122, 125, 129, 135}
    about_other_servers = {3, 6, 7, 8, 9, 10, 11, 135}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            name = endpoint(method, path)
            assert f"`{name}`" in sections(), "there is no section for it"
            section = sections()[f"`{name}`"]
            fields = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
            if "requestBody" in operation:
                for kind, content in operation["requestBody"]["content"].items():
                    if kind == "application/json":
                        reference = content["schema"]["$ref"]
                        fields |= set(schemas[reference.rpartition("/")[2]]["properties"])
            assert fields - quoted_names(section) == set(), name
            codes = {
                example["value"]["error"]["code"]
                for response in (
                    resolved(described, one) for one in operation["responses"].values()
                )
                for content in response.get("content", {}).values()
                for example in content.get("examples", {}).values()
            }
            told = re.search(r"Errors: ([^.]*)\.", " ".join(section.split()))
            numbers = set() if told is None else set(map(int, re.findall(r"\b\d+\b", told[1])))
            if "server" in fields:
                codes -= about_other_servers
            assert codes - shared - numbers == set(), name


def quoted_names(section: str) -> set[str]:
    return {word for text in quoted(section) for word in re.findall(r"\w+", text)}


# Limits ------------------------------------------------------------------------------------------


def test_settings_that_are_named_exist_with_their_defaults() -> None:
    by_flag = {flag(name): field.default for name, field in Settings.model_fields.items()}
    assert set(re.findall(r"`(--[\w-]+)", TEXT)) <= set(by_flag)
    told = 0
    for row in rows("Limits"):
        for option in re.findall(r"`(--[\w-]+)`", row[-1]):
            numbers = [float(one.replace(",", "")) for one in re.findall(r"[\d,.]*\d", row[1])]
            assert float(by_flag[option]) in numbers, option
            told += 1
    assert told > 10


def test_the_limits_without_a_setting_are_those_of_the_code() -> None:
    told = {row[0]: row[1] for row in rows("Limits")}
    total = InstanceLimits().retained_total_bytes // 1024**2
    assert told["retained values of all players of an instance"] == f"{total} MiB"
    assert told["subscriptions of a socket"] == str(SUBSCRIPTIONS)
    assert told["players in `to`"] == str(TO_LIMIT)
    (overhead,) = (text for what, text in told.items() if what.startswith("frames that are no"))
    assert overhead == f"{FRAMES_PER_MESSAGE} count as one message"
    assert f"1 to {KEY_LIMIT} characters" in sections()["`instance-data`"]


@pytest.mark.parametrize(
    ("who", "rate"),
    [
        ("address, everything", rate_limits.ADDRESS),
        ("account", rate_limits.ACCOUNT),
        ("token", rate_limits.TOKEN),
        ("another server", rate_limits.SERVER),
        ("address and endpoint that reads", rate_limits.READ),
        ("address and endpoint that writes", rate_limits.WRITE),
        ("address and `register` or `login`", rate_limits.LOGIN),
        ("username and address, wrong passwords", rate_limits.GUESSES),
        (
            "username, wrong passwords at all addresses where its user is not known",
            rate_limits.GUESSES_FROM_AFAR,
        ),
        ("address and endpoint that takes a picture", PICTURES),
        ("user, for tokens of other servers", rate_limits.VISIT),
        (
            "account, reads of [other servers' objects](#objects-of-other-servers)",
            rate_limits.REMOTE,
        ),
        ("this server, requests to one other server", PEER),
    ],
)
def test_the_rates_are_those_of_the_code(who: str, rate: Rate) -> None:
    assert [who, f"{rate.per_s:g}", str(rate.burst)] in rows("Limits")


# Links -------------------------------------------------------------------------------------------


def test_links_within_the_page_lead_to_a_heading() -> None:
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in sections()}
    links = set(re.findall(r"\]\(#([^)]*)\)", TEXT))
    assert links - anchors == set()
