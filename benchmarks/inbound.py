"""Inbound messages: many small rooms, so that receiving is the work, and not fan-out.

python -m benchmarks.inbound --url ws://host:3032 --tokens bots.txt
"""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks import worker
from benchmarks.connect import Target
from benchmarks.dialects import choose, read_tokens
from benchmarks.load import Plan
from benchmarks.rooms import PAYLOAD_BYTES, Rooms
from benchmarks.sustained import PROBES, SustainedResult, search


def main(
    url: worker.Url,
    tokens: worker.Tokens = None,
    players: Annotated[int, typer.Option(min=2, help="Players in all.")] = 200,
    group: Annotated[int, typer.Option(min=2, help="Players per room.")] = 2,
    first: Annotated[float, typer.Option(help="First rate to try: messages/s in all.")] = 8000,
    limit: Annotated[float, typer.Option(help="Highest rate to try, in all.")] = 60_000,
    probes: Annotated[int, typer.Option(min=1, help="Limit of runs.")] = PROBES,
    seconds: worker.Seconds = 3,
    protocol: worker.Protocol = "reileta",
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """The highest rate of messages that a server can receive."""

    def job(progress: worker.Share) -> SustainedResult:
        target = Target.parse(url)
        dialect = choose(protocol, target, read_tokens(tokens), players, group, None)
        rooms = Rooms(target, dialect, players, group, PAYLOAD_BYTES)
        plan = Plan(first / players, seconds, server_pid=pid)
        return search(rooms, plan, first / players, limit / players, probes, progress)

    worker.work(f"messages in, {players} players in rooms of {group}", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
