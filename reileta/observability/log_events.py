"""The names of log events, each a constant that one can search for.

A name is `noun.past-participle`; variable data is in the event's keys, never in its name.
"""

from __future__ import annotations

from typing import Final

# Start and stop of the server
SERVER_READY: Final = "server.ready"
"""The server accepts connections at `url`. Scripts wait for this event."""
SEATS_HELD: Final = "seats.held"
"""The server holds seats of players who were inside before it restarted, for `hold_s`."""
PAGES_OMITTED: Final = "pages.omitted"
"""The pages at `/` and `/console` were not built, so the server has none."""
SERVER_DRAINING: Final = "server.draining"
SERVER_STOPPED: Final = "server.stopped"

# Gateways
REGISTRY_CHANGED: Final = "registry.changed"
"""A gateway sees a registry as `ready`, `unready` or `lost` from now on."""
REGISTRY_FAILED: Final = "registry.failed"
"""A registry gave no answer to a request that was passed on."""
GATEWAY_NOT_TRUSTED: Final = "gateway.not_trusted"
"""A registry does not believe the headers of a gateway, because of the setting that is named. The
request counts as one of the gateway's own address. Logged once."""

# Clients
CLIENT_RULE_CHANGED: Final = "client.rule_changed"
"""An admin set or deleted a rule about clients; the audit log has its pattern."""

# Actors
ACTOR_STARTED: Final = "actor.started"
ACTOR_STOPPED: Final = "actor.stopped"
ACTOR_CRASHED: Final = "actor.crashed"
ACTOR_RESTARTED: Final = "actor.restarted"
ACTOR_ABANDONED: Final = "actor.abandoned"
"""The actor crashed more often than its policy allows and is not restarted."""
HOOK_FAILED: Final = "hook.failed"
"""`on_crash`, `gone` or abandoned work raised; the actor already had its outcome."""
TASK_CRASHED: Final = "task.crashed"
"""A background task raised; it is started again in `again_in_s` seconds."""
CLOCK_STEPPED: Final = "clock.stepped"
"""The database's clock was set, or the machine slept: the time jumped by `step_ms`."""
CLOCK_CORRECTED: Final = "clock.corrected"
"""The database's clock differs from the system's, by `ahead_ms`; the server follows it."""
SUPERVISOR_OVERDUE: Final = "supervisor.overdue"
"""Actors had not stopped when their supervisor's time was up; they are cancelled."""
ACTOR_RECEIVED: Final = "actor.received"
"""A message was handled. Logged at debug level, or if its trace is sampled."""

# Other servers
SERVER_RULE_CHANGED: Final = "server.rule_changed"
"""An admin changed a rule about other servers; without `kind`, the rule was deleted."""
SERVER_BLOCKED: Final = "server.blocked"
"""A rule excludes a server that had a token; its tokens, guests and objects are gone."""
PEER_KNOWN: Final = "peer.known"
"""Another server proved its key for the first time; the key is pinned."""
PEER_KEY_OFFERED: Final = "peer.key_offered"
"""Another server has a key that does not follow from the pinned one: an admin must accept it."""
PEER_KEY_CHANGED: Final = "peer.key_changed"
"""The pinned key of another server changed, by its chain of keys or (`by`) by an admin."""
PEER_FORGOTTEN: Final = "peer.forgotten"
"""An admin had this server forget another one, with its key, tokens and guests."""
CHALLENGE_ACCEPTED: Final = "challenge.accepted"
"""Another server proved who it is, and has a token of this server now."""
CHALLENGE_REFUSED: Final = "challenge.refused"
"""A challenge was refused; the client is not told the `cause`."""
SERVER_TOKEN_REVOKED: Final = "server.token_revoked"  # noqa: S105 - an event's name
PEER_TOKEN_OBTAINED: Final = "peer.token_obtained"  # noqa: S105
"""This server has a new token at another one."""
PEER_TOKEN_REFUSED: Final = "peer.token_refused"  # noqa: S105
"""This server got no token at another one; `code` and `cause` say why."""
PEER_TOKEN_REJECTED: Final = "peer.token_rejected"  # noqa: S105
"""Another server does not accept the token that it gave to this one."""

# Instances and sessions
INSTANCE_OPENED: Final = "instance.opened"
PLAYER_JOINED: Final = "player.joined"
PLAYER_LEFT: Final = "player.left"
"""A player left; `reason` as in `instance-left`."""
USER_MODERATED: Final = "user.moderated"
"""A host moderated a user in an instance, or gave or took a role; `type` says how."""
INSTANCE_ENDED: Final = "instance.ended"
"""An instance closed; `reason` says why."""
SWEEP_POSTPONED: Final = "sweep.postponed"
"""The database was down when the server searched for empty instances; it tries again later."""
LEASES_POSTPONED: Final = "leases.postponed"
"""The database was down when the server renewed the leases of sessions; it tries again later."""
HUB_FULL: Final = "hub.full"
"""The hub refused a change of a user's status; subscribers do not get it."""

# Cluster
BUS_CONNECTED: Final = "bus.connected"
"""The server is connected to NATS, by the connection of that number."""
BUS_LOST: Final = "bus.lost"
"""The connection to NATS ended; the server tries to connect again."""
BUS_FAILED: Final = "bus.failed"
"""NATS, or its client, reported an error on a connection, such as a missing permission."""
RELAY_FAILED: Final = "relay.failed"
"""The server failed while it relayed an instance of another node; it begins anew with it."""
LINK_STALLED: Final = "link.stalled"
"""Players of an instance at another node waited, and nothing was under way to end that: a fault of
the server, which looks for the instance again."""
PARCELS_LOST: Final = "parcels.lost"
"""A snapshot did not reach another node, whose players will get another one."""
GATEWAY_BEHIND: Final = "gateway.fell_behind"
"""Another node does not take in what an instance here sends to its players."""
INSTANCE_MOVED: Final = "instance.moved"
"""An instance was handed over to another node."""
HANDOVER_FAILED: Final = "handover.failed"
"""An instance could not be handed over: it stays here, or starts at the other node when asked."""
HANDOVER_UNKNOWN: Final = "handover.unknown"
"""The database does not say whether an instance has another host: until then its players wait."""
RESEAT_UNANSWERED: Final = "reseat.unanswered"
"""Another node did not say in time which players it has of an instance that this one hosts now."""
SOFT_STATE_FULL: Final = "seats.overflowed"
"""An instance has more seats and candidates than are kept for its next host."""
SOFT_STATE_REFUSED: Final = "seats.not_kept"
"""Seats and queues are not kept: by NATS for next hosts, since its memory may be too small; or by
the database for the next run of the server."""
CALL_FAILED: Final = "call.failed"
"""The server failed while it answered a call of another node; that node got error 16."""
CALL_MALFORMED: Final = "call.malformed"
"""Another node sent a call that this one can't read: it may be of another version."""
CALL_UNANSWERED: Final = "call.unanswered"
"""The answer to another node's call could not be sent; that node asks again, or gives up."""
NODE_JOINED: Final = "node.joined"
"""This process is a node of the cluster from now on, under a new id."""
NODE_FELL: Final = "node.fell"
"""This process was taken over, or gave its instances back (`of_itself`): it hosts nothing, and goes
on as another node. `isolated`: because NATS did not answer it."""
NODE_TAKEN_OVER: Final = "node.taken_over"
"""This node fenced another one, which was silent at both witnesses; its instances have no host."""
NODE_DRAINED: Final = "node.drained"
"""An operator has told this node to take no more instances (`on`), or to take some again."""
NODE_WITHDRAWN: Final = "node.withdrawn"
"""This node has left the cluster in order."""
TAKEOVER_FAILED: Final = "takeover.failed"
"""A witness went away while this node was taking another one over; it tries again."""
WRITE_FENCED: Final = "write.fenced"
"""This node tried to write for an instance that has another host by now; nothing was written."""
LEASE_CONFIRMED: Final = "lease.confirmed"
"""A witness has confirmed the lease of this node, which may host again."""
LEASE_RAN_OUT: Final = "lease.ran_out"
"""No witness has confirmed the lease in time: instances here are silent until one does."""
LEASE_UNANSWERED: Final = "lease.unanswered"
"""A witness did not answer a renewal."""

# Recordings
RECORDING_STARTED: Final = "recording.started"
RECORDING_STOPPED: Final = "recording.stopped"
"""A recording ended before its instance did; `reason` says why."""

# HTTP
REQUEST_SERVED: Final = "request.served"
REQUEST_SLOW: Final = "request.slow"
"""A request took over a second, with the time that the client took to send its body."""
REQUEST_FAILED: Final = "request.failed"
"""A handler raised an unexpected exception; the client got code 16."""

# Proxies
PROXY_NOT_TRUSTED: Final = "proxy.not_trusted"
"""A request had headers of a proxy, but did not come from one of `--trusted-proxies`: the headers
are ignored. Logged once."""
PROXY_UNCLEAR: Final = "proxy.unclear"
"""A trusted proxy sent both `X-Forwarded-…` and `Forwarded`, and they contradict each other. The
proxy must remove the one that it does not set. Logged once."""

# TLS
TLS_RELOADED: Final = "tls.reloaded"
"""SIGHUP: new connections get the certificate that the files have now."""
TLS_REFUSED: Final = "tls.refused"
"""The TLS files can't be used; the earlier certificate stays."""

# Other servers
SERVER_KEY_CHANGED: Final = "key.changed"
"""SIGHUP: the server took the key that `reileta key rotate` made."""
SERVER_KEY_REFUSED: Final = "key.refused"
"""The new key can't be used; the earlier one stays."""

# WebSockets
UPGRADE_REFUSED: Final = "upgrade.refused"
"""An upgrade to WebSocket was answered with an HTTP error; `status` says which."""
SOCKET_OPENED: Final = "socket.opened"
SOCKET_CLOSED: Final = "socket.closed"
"""A WebSocket ended with the close code `code`; 1006: without a closing handshake."""
SOCKET_RECEIVED: Final = "socket.received"
"""A client sent a message: the start of a trace. This and the next two are logged like
`actor.received`."""
SOCKET_SERVED: Final = "socket.served"
"""A command that waited for an actor is done, or was refused."""
FRAMES_SENT: Final = "frames.sent"
"""Frames were sent to sockets; `drain` messages were handled before this one write."""
CONNECTIONS_LIMITED: Final = "connections.limited"
"""The process can open too few files for `--connections`, so the server accepts fewer."""
CONNECTION_FAILED: Final = "connection.failed"
"""The server failed while it served a connection; the connection was closed."""

# The database
DATABASE_STARTED: Final = "database.started"
DATABASE_STOPPED: Final = "database.stopped"
DATABASE_DIED: Final = "database.died"
"""The embedded PostgreSQL exited unexpectedly; it is restarted."""
DATABASE_ACCOUNT_CREATED: Final = "database.account_created"
"""Reileta runs as root, and created a system account for PostgreSQL."""
DATABASE_WAY_OPENED: Final = "database.way_opened"
"""Folders got the permission `o+x` for the account that PostgreSQL runs as."""
DATABASE_LOST: Final = "database.lost"
DATABASE_BACK: Final = "database.back"
DATABASE_FAULT: Final = "database.fault"
"""A statement failed for a reason that the operator must mend, such as a missing permission."""
DATABASE_SUPERSEDED: Final = "database.superseded"
"""After an outage another server uses the database; this one is not ready until that one stops."""
DATABASE_LOCKED: Final = "database.locked"
"""After an outage the server has the database for itself again."""
DATABASE_CALLBACK_FAILED: Final = "database.callback_failed"
"""The driver of the database failed outside of a statement."""
DATABASE_MIGRATED: Final = "database.migrated"
DATABASE_NEWER: Final = "database.newer"
"""A newer version of Reileta wrote the database, and this version works on it."""

# Files
CHANGES_POSTPONED: Final = "changes.postponed"
"""The database was down when the server asked for changes by other processes; it asks again."""
LINE_LEFT: Final = "line.left"
"""A waiting line has moved to another node, and a session may not wait in it any more."""
ATTEMPTS_UNCOUNTED: Final = "attempts.uncounted"
"""The database is down: attempts to log in and the like are counted at this node only."""
REVOCATIONS_POSTPONED: Final = "revocations.postponed"
"""The check of the tokens and sessions of all sockets waits for the database."""
FILES_TIDIED: Final = "files.tidied"
"""Counts of partial uploads deleted, files adopted, and unreferenced files deleted."""
FILES_POSTPONED: Final = "files.postponed"
"""The database or the disk was unavailable; the work is tried again."""

# Accounts
ACCOUNT_CREATED: Final = "account.created"
"""`by` is the admin who made it; without `by`, the user registered. `temporary`: it has no
password."""
ACCOUNT_DELETED: Final = "account.deleted"
"""By the user or an admin; without `by`, a temporary account was left long enough ago."""
ACCOUNT_KEPT: Final = "account.kept"
"""A temporary account got a username and a password, and so is a full one."""
ACCOUNT_SUSPENDED: Final = "account.suspended"
ACCOUNT_UNSUSPENDED: Final = "account.unsuspended"
"""A suspension was lifted by an admin, or (without `by`) its time is over."""
PASSWORD_CHANGED: Final = "password.changed"  # noqa: S105 - an event's name
ADMIN_GRANTED: Final = "admin.granted"
ADMIN_REVOKED: Final = "admin.revoked"
COMMAND_RUN: Final = "command.run"
"""A command such as `reileta admin grant` changed the database; `action` is as in the audit log."""
LOGIN_REFUSED: Final = "login.refused"
"""`user` is left out if there is no such user: what was typed could be a password."""
TOKEN_REUSED: Final = "token.reused"  # noqa: S105 - an event's name
"""A refresh key was used after its successor: a sign of theft."""

# Guests
GUEST_ADMITTED: Final = "guest.admitted"
"""A user of another server got a token; `server` introduced it."""
GUEST_REVOKED: Final = "guest.revoked"
"""A guest's token was revoked, by itself, by its server or by an admin."""
GUESTS_EXCLUDED: Final = "guests.excluded"
"""Users of `server` may not be here any more; those who were have left."""
VISIT_BEGUN: Final = "visit.begun"
"""A user of this server got a token of `server`."""
VISIT_REVOKED: Final = "visit.revoked"
"""`server` has revoked a token that it had issued to a user of this server."""
VISITS_POSTPONED: Final = "visits.postponed"
"""`server` could not be asked to revoke tokens; it is asked again, for an hour in all."""
# Objects of other servers
REMOTE_ANSWER_REFUSED: Final = "remote.answer_refused"
"""Another server answered with something that is not valid; `code` says in which way, and `fields`
which of its fields."""
REMOTE_OBJECTS_LEFT_OUT: Final = "remote.objects_left_out"
"""So many `objects` of another server's list have names that nobody could read, or name objects
of this server that don't exist."""

# The log itself
LOG_LIMITED: Final = "log.limited"
"""So many `lines` of one kind of event were left out, because there were too many."""
LOG_DROPPED: Final = "log.dropped"
"""Nobody read the log for a while; so many `lines` were dropped."""
LOG_REOPENED: Final = "log.reopened"
"""SIGHUP: output that goes to files was opened again, by the name of the file."""

# Records of the standard library's logging
LIBRARY_SAID: Final = "library.said"

# Services
SERVICE_TOKEN_ISSUED: Final = "service.token_issued"  # noqa: S105 - an event's name
SERVICE_TOKEN_REVOKED: Final = "service.token_revoked"  # noqa: S105

# Instance nodes
NODE_CREATED: Final = "node.created"
DIRECT_CONNECTED: Final = "direct.connected"
DIRECT_PROVED: Final = "direct.proved"
"""A linked node has proved that clients reach it at its address."""
DIRECT_WITHDRAWN: Final = "direct.withdrawn"
"""A linked node does not prove any more that it is at its address: clients get the server again."""
NODE_LINKED: Final = "node.linked"
"""An instance node has opened a link; `link` is its number."""
NODE_UNLINKED: Final = "node.unlinked"
"""The link of an instance node has ended; `reason` says why."""
NODE_REFUSED: Final = "node.refused"
"""An instance node broke the form of the link; `reason` says how. After three within a minute, the
link is cut."""
LINK_LOST: Final = "link.lost"
"""This instance node has lost its link to the server; it connects again in `again_in_s` seconds."""
LINK_OPENED: Final = "link.opened"
"""This instance node is connected to its server."""
NODE_READY: Final = "node.ready"
"""This instance node runs. Scripts wait for this event."""
