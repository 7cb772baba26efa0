"""The names of the log's events, so that a search for one finds where it is written.

A name is `noun.past-participle`; what varies stands in the event's keys, never in its name.
"""

from __future__ import annotations

from typing import Final

# The server's life
SERVER_READY: Final = "server.ready"
"""It takes connections; `url` says where. Scripts wait for this one."""
SERVER_DRAINING: Final = "server.draining"
SERVER_STOPPED: Final = "server.stopped"

# Actors
ACTOR_STARTED: Final = "actor.started"
ACTOR_STOPPED: Final = "actor.stopped"
ACTOR_CRASHED: Final = "actor.crashed"
ACTOR_RESTARTED: Final = "actor.restarted"
ACTOR_ABANDONED: Final = "actor.abandoned"
"""It crashed more often than its policy allows, and is not started again."""
HOOK_FAILED: Final = "hook.failed"
"""`on_crash`, `gone` or abandoned work raised; the actor had its outcome already."""
SUPERVISOR_OVERDUE: Final = "supervisor.overdue"
"""Actors that were not done when their supervisor's time was up; they are cancelled."""
ACTOR_RECEIVED: Final = "actor.received"
"""A message was handled: at debug level, or when its trace is sampled."""

# Instances and sessions
INSTANCE_ENDED: Final = "instance.ended"
"""An instance closed; `reason` says why."""
SWEEP_POSTPONED: Final = "sweep.postponed"
"""The database was away when empty instances were looked for; it is asked again."""
LEASES_POSTPONED: Final = "leases.postponed"
"""The database was away when the leases of sessions were renewed; it is asked again."""
HUB_FULL: Final = "hub.full"
"""The hub refused a change of a user's status; subscribers do not learn of it."""

# Recordings
RECORDING_STARTED: Final = "recording.started"
RECORDING_STOPPED: Final = "recording.stopped"
"""A recording ended before its instance did; `reason` says why."""

# HTTP
REQUEST_SERVED: Final = "request.served"
REQUEST_FAILED: Final = "request.failed"
"""A handler raised what it should not have; the asker got code 16."""

# WebSockets
SOCKET_OPENED: Final = "socket.opened"
SOCKET_CLOSED: Final = "socket.closed"
SOCKET_RECEIVED: Final = "socket.received"
"""A message came from a client: where a trace begins. This and the next two as `actor.received`."""
SOCKET_SERVED: Final = "socket.served"
"""A command that had to wait for others is done, or was refused."""
FRAMES_SENT: Final = "frames.sent"
"""Frames went to sockets; with `drain` messages handled before they were written all at once."""
CONNECTIONS_LIMITED: Final = "connections.limited"
"""The process may open too few files for `--connections`; fewer are taken."""
CONNECTION_FAILED: Final = "connection.failed"
"""Something of ours failed while a connection was served; the client was hung up on."""

# The database
DATABASE_STARTED: Final = "database.started"
DATABASE_STOPPED: Final = "database.stopped"
DATABASE_DIED: Final = "database.died"
"""The embedded PostgreSQL ended by itself; it is started again."""
DATABASE_WAY_OPENED: Final = "database.way_opened"
"""Folders were made passable (`o+x`) for the account that PostgreSQL runs as."""
DATABASE_LOST: Final = "database.lost"
DATABASE_BACK: Final = "database.back"
DATABASE_MIGRATED: Final = "database.migrated"

# Files
CHANGES_POSTPONED: Final = "changes.postponed"
"""The database was away when it was asked what other processes changed; it is asked again."""
FILES_TIDIED: Final = "files.tidied"
"""How many uploads were swept out, files adopted, and files collected that nobody wants."""
FILES_POSTPONED: Final = "files.postponed"
"""The database or the disk was away; it is tried again."""

# Accounts
TOKEN_REUSED: Final = "token.reused"  # noqa: S105 - an event's name
"""A refresh key was used after its successor: a sign of theft."""

# What libraries say through the standard library's logging
LIBRARY_SAID: Final = "library.said"
