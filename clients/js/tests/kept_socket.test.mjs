// Both sockets of a client come back in the same way. The server is a fake one, and no test waits.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff, Client, Disconnected, ErrorCode, MemoryStore } from "../dist/index.js";
import { until } from "./server.mjs";

const KEYS = { session: "s_1", token: "ua_1", refresh: "ur_1", token_until: Infinity, refresh_until: Infinity };

/** A server of one user. `sockets` are those that the client has opened. */
class FakeServer {
  sockets = [];
  asked = [];
  /** The code of the error that a path answers. */
  refused = {};

  constructor() {
    const server = this;
    this.WebSocket = class {
      readyState = 0;
      bufferedAmount = 0;
      sent = [];

      constructor(url) {
        this.url = url;
        server.sockets.push(this);
      }

      open() {
        this.readyState = 1;
        this.onopen();
      }

      send(text) {
        const message = JSON.parse(text);
        this.sent.push(message);
        if (message.command === "authenticate") {
          this.give({ state: message.state, data: { user: { id: "u_1" }, session: "s_1" } });
        }
      }

      give(message) {
        queueMicrotask(() => this.onmessage({ data: JSON.stringify(message) }));
      }

      close() {
        this.lose(1000, "");
      }

      lose(code, reason) {
        if (this.readyState === 3) return;
        this.readyState = 3;
        this.onclose({ code, reason });
      }
    };
  }

  fetch = async (url) => {
    const { pathname } = new URL(url);
    this.asked.push(pathname);
    if (pathname in this.refused) {
      const error = { code: this.refused[pathname], message: "refused" };
      return new Response(JSON.stringify({ error }), { status: 401 });
    }
    const expires = new Date(2 ** 42).toISOString();
    const token = {
      access: "ua_2", refresh: "ur_2", access_expires: expires, refresh_expires: expires, session: { id: "s_1" },
    };
    return new Response(JSON.stringify({ token, time: Date.now() }));
  };
}

const KINDS = {
  connection: {
    prefix: "connection-",
    take: (socket) => socket.open(),
    token: (socket) => socket.sent[0].data.token,
  },
  session: {
    prefix: "",
    take(socket) {
      socket.open();
      socket.give({ type: "event", id: "e_1", payload: { kind: "hello", session: { state: {}, resource: null } } });
    },
    token: (socket) => new URL(socket.url).searchParams.get("authuser"),
  },
};

for (const [kind, { prefix, take, token }] of Object.entries(KINDS)) {
  const begun = () => {
    const server = new FakeServer();
    const store = new MemoryStore();
    store.save(KEYS);
    const options = { WebSocket: server.WebSocket, fetch: server.fetch, store };
    const client = new Client("http://server.test", { ...options, backoff: new Backoff(0, 0, () => 0) });
    const kept = client[kind];
    const events = [];
    for (const name of ["open", "lost", "closed"]) {
      kept.on(`${prefix}${name}`, (value) => events.push({ name, ...value }));
    }
    return { server, client, kept, events };
  };

  test(`a lost ${kind} comes back, and whoever waits is told`, async () => {
    const { server, client, kept, events } = begun();
    const ready = kept.ready();
    take(server.sockets[0]);
    await ready;
    server.sockets[0].lose(1006, "");
    assert.equal(kept.open, false);
    const again = kept.ready();
    await until(() => server.sockets.length === 2);
    take(server.sockets[1]);
    await again;
    await until(() => events.length === 3);
    assert.deepEqual(events, [
      { name: "open", again: false },
      { name: "lost", code: 1006, reason: "", retryMs: 0 },
      { name: "open", again: true },
    ]);
    const waits = kept.ready();
    server.sockets[1].lose(1006, "");
    const never = kept.ready();
    client.close();
    await waits;
    await assert.rejects(never, Disconnected);
    await assert.rejects(kept.ready(), Disconnected);
    assert.equal(server.sockets.length, 2);
  });

  test(`a ${kind} waits as long as the server asks, and longer if that is busy`, async () => {
    const { server, client, kept, events } = begun();
    take(server.sockets[0]);
    await kept.ready();
    server.sockets[0].lose(1001, "restart, come back in 7 s");
    const [, { retryMs }] = events;
    assert.ok(retryMs >= 7_000 && retryMs <= 8_000, String(retryMs));
    client.close();
    const busy = begun();
    take(busy.server.sockets[0]);
    await busy.kept.ready();
    busy.server.sockets[0].lose(1013, "");
    assert.equal(busy.events.at(-1).retryMs, 1_000);
    busy.client.close();
  });

  test(`a ${kind} whose keys were replaced comes back with new ones`, async () => {
    const { server, client, kept } = begun();
    server.refused["/session"] = ErrorCode.CredentialInvalid;
    take(server.sockets[0]);
    await kept.ready();
    server.sockets[0].lose(4000, "");
    await until(() => server.sockets.length === 2);
    take(server.sockets[1]);
    await kept.ready();
    assert.equal(token(server.sockets[1]), "ua_2");
    assert.equal(server.asked.at(-1), "/auth/refresh");
    client.close();
  });

  test(`a ${kind} ends with its session`, async () => {
    const { server, kept, events } = begun();
    server.refused = { "/session": ErrorCode.CredentialInvalid, "/auth/refresh": ErrorCode.CredentialInvalid };
    const never = kept.ready();
    server.sockets[0].open();
    server.sockets[0].lose(4000, "");
    await assert.rejects(never, Disconnected);
    assert.deepEqual(events.map(({ name, code }) => [name, code]), [["lost", 4000], ["closed", 4000]]);
    assert.equal(server.sockets.length, 1);
  });
}

test("an upgrade that is refused may be the credential's fault", async () => {
  const server = new FakeServer();
  const store = new MemoryStore();
  store.save(KEYS);
  server.refused["/session"] = ErrorCode.CredentialInvalid;
  const client = new Client("http://server.test", { WebSocket: server.WebSocket, fetch: server.fetch, store });
  const ready = client.session.ready();
  server.sockets[0].lose(1006, ""); // a page learns no more
  await until(() => server.sockets.length === 2);
  KINDS.session.take(server.sockets[1]);
  await ready;
  assert.equal(KINDS.session.token(server.sockets[1]), "ua_2");
  client.close();
});
