import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Client, Disconnected, ErrorCode, MemoryStore, ProtocolError, Refused } from "../dist/index.js";
import { Proxy, Server, until } from "./server.mjs";

const PASSWORD = "only an example";
let server;
let count = 0;
const clients = [];

before(async () => {
  server = await Server.start("--rate-limits", "off", "--seat-grace-s", "20", "--temporary-accounts", "9");
});

after(async () => {
  for (const client of clients) client.close();
  await server.stop();
});

async function user(name, url = server.url, options = {}) {
  const client = new Client(url, options);
  clients.push(client);
  await client.register(`${name}_${++count}`, PASSWORD, name);
  return client;
}

async function instance(owner, fields = {}) {
  const { id: world } = await owner.http.put("/api/worlds", { body: { title: "A meadow" } });
  return owner.http.put("/api/instances", { body: { world, ...fields } });
}

function record(room, ...names) {
  const seen = [];
  for (const name of names) room.on(name, (value) => seen.push([name, value]));
  return seen;
}

test("a temporary account becomes a full one", async () => {
  const client = new Client(server.url);
  clients.push(client);
  const { id, temporary } = await client.registerTemporarily("Eve");
  assert.equal(temporary, true);
  const kept = await client.keepAccount("eve", PASSWORD);
  assert.deepEqual([kept.id, kept.username, kept.temporary], [id, "eve", undefined]);
});

test("two players meet", async () => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const { id } = await instance(ann);
  const first = await ann.join(id);
  first.set("pose", { x: 1 });
  const seen = record(first, "joined", "left", "message", "value");
  await until(() => ann.connection.open);
  await ann.connection.ping(); // the pose is there
  const second = await ben.join(id);
  assert.deepEqual([...second.players.values()].map((one) => one.displayname), ["Ann", "Ben"]);
  assert.deepEqual(second.value(first.player, "pose"), { x: 1 });
  assert.equal(second.me.displayname, "Ben");
  await second.send({ say: "hello" });
  second.set("pose", { x: 2 });
  await until(() => first.value(second.player, "pose")?.x === 2);
  second.set("pose", null);
  await until(() => seen.at(-1)[1].data === undefined);
  assert.equal(first.value(second.player, "pose"), undefined);
  await second.leave();
  await until(() => seen.at(-1)[0] === "left");
  const kinds = seen.map(([name, value]) => (name === "message" ? value.data.say : name));
  assert.deepEqual(kinds, ["joined", "hello", "value", "value", "left"]);
  assert.equal(first.players.size, 1);
  assert.equal(second.inside, false);
  assert.throws(() => second.set("pose", 1), Disconnected);
});

test("a room asks for fewer values, and asks again after a new connection", async (t) => {
  const proxy = await Proxy.to(server.port);
  t.after(() => proxy.close());
  const [ann, ben] = [await user("Ann", proxy.url), await user("Ben")];
  const { id } = await instance(ann, { position_key: "pose" });
  const [first, second] = [await ann.join(id), await ben.join(id)];
  await first.interest({ near: 8, farRate: 0.1 });
  // A request that is refused changes nothing, also not what is asked for again.
  await assert.rejects(first.interest({ near: 8 }), Refused);
  let seen = [];
  first.on("value", ({ data }) => seen.push(data.x));
  /** What comes of 20 values of Ben, who is far away. */
  const values = async (from) => {
    seen = [];
    for (let x = from; x < from + 20; x++) {
      await ben.connection.request("instance-data", { x }, { subgroup: id, key: "pose" });
    }
    const said = first.once("message"); // messages come as always, after all that was before them
    await second.send("all");
    await said;
    return seen;
  };
  first.set("pose", { x: 0 });
  assert.ok((await values(1000)).length < 20);
  const open = ann.connection.once("connection-open");
  proxy.cut();
  await open;
  assert.ok((await values(2000)).length < 20);
  await first.interest({});
  const all = Array.from({ length: 20 }, (_, index) => 3000 + index);
  assert.deepEqual((await values(3000)).slice(-20), all);
});

test("a refusal is an error with a code and fields", async () => {
  const ann = await user("Ann");
  const refused = await instance(ann, { capacity: 0 }).catch((error) => error);
  assert.ok(refused instanceof Refused);
  assert.equal(refused.code, ErrorCode.InstanceInvalid);
  assert.equal(refused.status, 400);
  assert.equal(refused.details[0].field, "capacity");
  const nowhere = await ann.join("nowhere-at-all").catch((error) => error);
  assert.equal(nowhere.code, ErrorCode.InstanceNotFound);
  const stranger = new Client(server.url);
  const wrong = await stranger.login("nobody_at_all", PASSWORD).catch((error) => error);
  assert.equal(wrong.code, ErrorCode.LoginInvalid);
});

test("whoever waits in line comes in when a seat is free", async () => {
  const [ann, ben, cleo] = [await user("Ann"), await user("Ben"), await user("Cleo")];
  const { id } = await instance(ann, { capacity: 1 });
  const inside = await ann.join(id);
  const places = { ben: [], cleo: [] };
  const ends = new AbortController();
  const second = ben.join(id, { wait: true, onQueue: ({ position }) => places.ben.push(position) });
  await until(() => places.ben.includes(1));
  const third = cleo.join(id, {
    wait: true,
    onQueue: ({ position }) => places.cleo.push(position),
    signal: ends.signal,
  });
  await until(() => places.cleo.includes(2));
  await inside.leave();
  const room = await second;
  assert.equal(room.me.displayname, "Ben");
  await until(() => places.cleo.at(-1) === 1);
  ends.abort(new Error("enough"));
  await assert.rejects(third, { message: "enough" });
  const { queued } = await ann.http.get("/api/instances/{ref}/queue", { path: { ref: id } });
  assert.equal(queued, 0);
  await assert.rejects(ann.join(id), (error) => error.code === ErrorCode.InstanceFull);
});

test("a page that is loaded again has its place in line, and is refused nothing", async () => {
  const ann = await user("Ann");
  const { id } = await instance(ann, { capacity: 1 });
  const inside = await ann.join(id);
  const store = new MemoryStore();
  const places = [];
  const waits = (page) => page.join(id, { wait: true, onQueue: ({ position }) => places.push(position) });
  const before = await user("Ben", server.url, { store });
  waits(before).catch(() => {});
  await until(() => places.length > 0);
  before.close();
  const refused = [];
  const again = new Client(server.url, {
    store,
    fetch: async (...asked) => {
      const answer = await fetch(...asked);
      if (!answer.ok) refused.push(String(asked[0]));
      return answer;
    },
  });
  clients.push(again);
  places.length = 0;
  const room = waits(again);
  await until(() => places.length > 0);
  assert.equal(places[0], 1);
  await inside.leave();
  assert.equal((await room).me.displayname, "Ben");
  assert.deepEqual(refused, []);
});

test("an answer that comes late does not undo what the socket has told", async () => {
  const ann = await user("Ann");
  const { id } = await instance(ann, { capacity: 1 });
  const inside = await ann.join(id);
  const store = new MemoryStore();
  const before = await user("Ben", server.url, { store });
  const places = [];
  const waits = (page) => page.join(id, { wait: true, onQueue: ({ position }) => places.push(position) });
  waits(before).catch(() => {});
  await until(() => places.length > 0);
  before.close();
  places.length = 0;
  let goOn;
  const held = new Promise((resolve) => (goOn = resolve));
  let asked = false;
  const again = new Client(server.url, {
    store,
    fetch: async (...what) => {
      const answer = await fetch(...what);
      if (String(what[0]).endsWith("/queue")) {
        asked = true;
        await held;
      }
      return answer;
    },
  });
  clients.push(again);
  const room = waits(again);
  await until(() => asked);
  await inside.leave();
  assert.equal((await room).me.displayname, "Ben");
  goOn();
  await again.http.get("/api/time", {}); // the answer was taken meanwhile
  assert.deepEqual(places, []);
});

test("a cut connection comes back as the same player", async (t) => {
  const proxy = await Proxy.to(server.port);
  t.after(() => proxy.close());
  const [ann, ben] = [await user("Ann"), await user("Ben", proxy.url)];
  const { id } = await instance(ann);
  const [first, second] = [await ann.join(id), await ben.join(id)];
  await ben.connection.subscribe("update-world");
  second.set("pose", { x: 1 });
  await until(() => first.value(second.player, "pose"));
  const { player } = second;
  const others = record(first, "joined", "left");
  const own = record(second, "away", "back", "joined", "left", "message");
  const lost = ben.connection.once("connection-lost");
  const asked = ben.http.get("/api/time", {}).catch(() => {});
  proxy.cut();
  await lost;
  await first.send("while you were away");
  // If the server wrote it before it knew of the cut, nobody has it, and the room is told of a gap.
  const missed = () => own.some(([name, value]) => name === "back" && value.gap);
  await until(() => missed() || own.some(([name]) => name === "message"));
  await asked;
  assert.equal(second.player, player);
  assert.deepEqual(others, []);
  const names = own.map(([name]) => name);
  assert.deepEqual(names, missed() ? ["away", "back"] : ["away", "back", "message"]);
  assert.equal(own[1][1].samePlayer, true);
  const told = ben.connection.once("update-world");
  await ann.http.put("/api/worlds", { body: { title: "Another" } });
  assert.equal((await told).data.title, "Another");
  ben.close();
});

test("a slow reader gets the newest values, and comes back if too much waits for it", async (t) => {
  const proxy = await Proxy.to(server.port);
  t.after(() => proxy.close());
  const [ann, ben] = [await user("Ann"), await user("Ben", proxy.url)];
  const [cleo, dan] = [await user("Cleo"), await user("Dan")];
  const { id } = await instance(ann);
  const [first, second, third] = [await ann.join(id), await ben.join(id), await cleo.join(id)];
  await until(() => second.players.size === 3);
  const { player } = second;
  const { session } = ben.connection;
  const others = record(first, "joined", "left");
  const own = record(second, "away", "back", "joined", "left", "value", "message");
  const filler = "x".repeat(60_000);

  proxy.pause();
  for (let x = 1; x <= 40; x++) {
    first.set("pose", { x, filler }, { perSecond: 1e6 });
    await ann.connection.ping(); // each of them reaches the server
  }
  proxy.resume();
  await until(() => second.value(first.player, "pose")?.x === 40);
  const values = own.splice(0).map(([name, value]) => [name, value.data.x]);
  assert.ok(values.length < 40, "older values made room for newer ones");
  assert.deepEqual(values, values.toSorted((one, other) => one[1] - other[1]));
  assert.ok(values.every(([name]) => name === "value"), "the connection held");

  proxy.pause();
  const lost = ben.connection.once("connection-lost");
  const closed = await server.metric("reileta_too_slow_total");
  for (let n = 0; (await server.metric("reileta_too_slow_total")) === closed; n++) {
    assert.ok(n < 400, "the server closes a socket for which too much waits");
    await first.send({ n, filler });
  }
  await third.leave();
  const fourth = await dan.join(id);
  first.set("pose", { x: 41 }, { perSecond: 1e6 });
  fourth.set("pose", { x: 7 });
  await Promise.all([ann.connection.ping(), dan.connection.ping()]);
  proxy.resume();
  // 1006: the server waits only a while for somebody to read why.
  assert.ok([4008, 1006].includes((await lost).code));
  await until(() => own.some(([name]) => name === "back"));
  assert.deepEqual(own.find(([name]) => name === "back")[1], { gap: true, samePlayer: true });
  assert.equal(second.player, player);
  assert.equal(ben.connection.session, session);
  const names = (room) => [...room.players.values()].map((one) => one.displayname);
  assert.deepEqual(names(second), ["Ann", "Ben", "Dan"]);
  assert.deepEqual(names(second), names(first));
  assert.equal(second.value(first.player, "pose").x, 41);
  assert.equal(second.value(fourth.player, "pose").x, 7);
  assert.equal(second.value(third.player, "pose"), undefined);
  const numbers = own.filter(([name]) => name === "message").map(([, { data }]) => data.n);
  assert.deepEqual(numbers, numbers.map((_, index) => index), "in order, and none twice");
  assert.deepEqual(others.map(([name]) => name), ["left", "joined"], "nobody saw Ben go");
  await second.send("here again");
});

test("a request rejects when its connection is lost", async (t) => {
  const proxy = await Proxy.to(server.port);
  t.after(() => proxy.close());
  const ann = await user("Ann", proxy.url);
  await ann.connection.ready();
  const asked = ann.connection.request("ping", {});
  proxy.cut();
  await assert.rejects(asked, Disconnected);
  assert.ok((await ann.connection.ping()) > 0, "it connects again");
  ann.close();
  assert.throws(() => ann.connection, Disconnected);
});

test("values are sent no faster than asked, and the newest arrives", async () => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const { id } = await instance(ann);
  const [first, second] = [await ann.join(id), await ben.join(id)];
  const seen = record(first, "value");
  const begun = performance.now();
  for (let x = 0; x <= 300; x++) {
    second.set("pose", { x }, { perSecond: 20 });
    if (x % 10 === 0) await sleep(10);
  }
  await until(() => first.value(second.player, "pose")?.x === 300);
  const most = 2 + (20 * (performance.now() - begun)) / 1000; // a busy machine takes its time
  assert.ok(seen.length <= most, `${seen.length} values came`);
});

test("a value that is too large closes the socket once, and is forgotten", async () => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const { id } = await instance(ann);
  const [first, second] = [await ann.join(id), await ben.join(id)];
  second.set("name", "Ben");
  const back = second.once("back");
  second.set("scan", "x".repeat(70_000));
  await back;
  second.set("pose", { x: 1 });
  await until(() => first.value(second.player, "pose")?.x === 1);
  assert.equal(first.value(second.player, "name"), "Ben");
  assert.equal(first.value(second.player, "scan"), undefined);
});

test("a kicked player is told why, and does not come back by itself", async () => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const { id } = await instance(ann);
  const [first, second] = [await ann.join(id), await ben.join(id)];
  const ended = second.once("ended");
  const left = record(first, "left");
  await first.moderate({ player: second.player }, "kick", { reason: "too loud" });
  assert.equal(left.length, 1, "it is told before the answer");
  const { reason, note } = await ended;
  assert.deepEqual([reason, note], ["kicked", "too loud"]);
  assert.equal(second.inside, false);
  assert.equal(first.players.size, 1);
});

test("a logout ends rooms and sockets", async () => {
  const ann = await user("Ann");
  const { id } = await instance(ann);
  const room = await ann.join(id);
  const ended = room.once("ended");
  await ann.logout();
  await ended;
  assert.equal(ann.loggedIn, false);
  await assert.rejects(ann.join(id));
});

test("a listener that fails keeps nothing from the others", async (t) => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const { id } = await instance(ann);
  const first = await ann.join(id);
  const errors = [];
  const theirs = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => errors.push(error.message));
  t.after(() => {
    process.removeAllListeners("uncaughtException");
    for (const listener of theirs) process.on("uncaughtException", listener);
  });
  first.on("joined", () => {
    throw new Error("mine");
  });
  const joined = first.once("joined");
  await ben.join(id);
  assert.equal((await joined).displayname, "Ben");
  await until(() => errors.length === 1);
});

test("two pages refresh once, and both go on", async () => {
  const shared = new MemoryStore();
  const ann = await user("Ann", server.url, { store: shared });
  const other = new Client(server.url, { store: shared });
  clients.push(other);
  const before = ann.token;
  await Promise.all([ann.credentials.refresh(), other.credentials.refresh()]);
  assert.notEqual(ann.token, before);
  await other.credentials.refresh();
  await ann.credentials.refresh(); // takes what the other has got
  assert.equal(ann.token, other.token);
  await ann.http.whole("get", "/session", {});
});

test("the state of a session is the same for all its sockets", async () => {
  const ann = await user("Ann");
  const other = new Client(server.url);
  clients.push(other);
  const { username } = await ann.http.get("/api/users/{ref}", { path: { ref: "@me" } });
  other.credentials.set(ann.credentials.current);
  await other.login(username, PASSWORD); // the same session, with a token of its own
  assert.equal(other.credentials.current.session, ann.credentials.current.session);
  await other.session.ready();
  await ann.session.patch({ door: { width: 91.5 }, light: true });
  await ann.session.patch({ light: null });
  assert.deepEqual(ann.session.state, { door: { width: 91.5 } });
  const { session } = await ann.http.whole("get", "/session", {});
  assert.deepEqual(session.state, { door: { width: 91.5 } });
  await until(() => JSON.stringify(other.session.state) === JSON.stringify(session.state));
  await ann.session.patch({ long: "x".repeat(40_000) });
  await assert.rejects(ann.session.patch({ longer: "x".repeat(40_000) }), Refused);
  await ann.session.patch({ long: null });
  // More values than a state may have: the server closes the socket, and it is not sent again.
  const many = Object.fromEntries(Array.from({ length: 4_500 }, (_, index) => [`n${index}`, 1]));
  await assert.rejects(ann.session.patch(many), ProtocolError);
  await ann.session.patch({ light: true });
  assert.deepEqual(ann.session.state, { door: { width: 91.5 }, light: true });
});

test("a resource is watched, and handed on in line", async () => {
  const [ann, ben] = [await user("Ann"), await user("Ben")];
  const made = await ann.http.whole("post", "/resource/{type}", {
    path: { type: "document" },
    body: { title: "Front door", data: { width: 80 } },
  });
  const { id } = made.resource;
  const path = { type: "document", number: id };
  const { username } = await ben.http.get("/api/users/{ref}", { path: { ref: "@me" } });
  await ann.http.whole("post", "/resource/{type}/{number}/share", { path, body: { user: username } });
  const versions = [];
  const watched = await ben.session.watch("document", id, (one) => versions.push(one.current.version));
  assert.deepEqual(watched.view.data, { width: 80 });
  await ann.session.ready();
  await ann.session.acquire("document", id);
  await ann.session.write("document", id, { data: { height: 20 } });
  await until(() => watched.view.data.height === 20);
  const places = [];
  const acquired = ben.session.acquire("document", id, {
    wait: true,
    onQueue: ({ position }) => places.push(position),
  });
  await until(() => watched.current.holder !== null && places.includes(1));
  await ann.session.release("document", id);
  await acquired;
  await ben.session.write("document", id, { data: { width: 91 } });
  await until(() => watched.view.data.width === 91);
  assert.deepEqual(watched.view.data, { width: 91, height: 20 });
  await watched.stop();
});
