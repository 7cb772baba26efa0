import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client } from "../dist/index.js";
import { Server, until } from "./server.mjs";

const PASSWORD = "only an example";
let server;
const clients = [];

before(async () => {
  server = await Server.start("--rate-limits", "off", "--access-lifetime-s", "4");
});

after(async () => {
  for (const client of clients) client.close();
  await server.stop();
});

async function user(name) {
  const client = new Client(server.url);
  clients.push(client);
  await client.register(name, PASSWORD, name);
  return client;
}

test("after kill -9 everybody is back in the room, with what they keep", async () => {
  const [ann, ben] = [await user("ann"), await user("ben")];
  const { id: world } = await ann.http.put("/api/worlds", { body: { title: "A meadow" } });
  const { id } = await ann.http.put("/api/instances", { body: { world } });
  const [first, second] = [await ann.join(id), await ben.join(id)];
  first.set("pose", { x: 1 });
  second.set("pose", { x: 2 });
  await until(() => first.value(second.player, "pose") && second.value(first.player, "pose"));
  await ann.session.patch({ door: 1 });
  const back = Promise.all([first.once("back"), second.once("back")]);
  await server.kill();
  const patched = ann.session.patch({ door: 2 });
  await server.run();
  await back;
  await until(() => first.players.size === 2 && second.players.size === 2);
  await until(() => second.value(first.player, "pose")?.x === 1);
  await until(() => first.value(second.player, "pose")?.x === 2);
  await patched;
  assert.deepEqual(ann.session.state, { door: 2 });
  const { session } = await ann.http.whole("get", "/session", {});
  assert.deepEqual(session.state, { door: 2 });
});

test("keys are refreshed before they end, and sockets stay", async () => {
  const cleo = await user("cleo");
  const times = [performance.now()];
  await cleo.credentials.refresh(); // from now on its keys live for 4 s
  await cleo.connection.ready();
  const closed = [];
  cleo.connection.on("connection-lost", (one) => closed.push(one));
  const used = new Set();
  cleo.credentials.on("changed", (one) => {
    used.add(one?.token);
    times.push(performance.now());
  });
  await until(() => used.size >= 3, "three refreshes");
  assert.ok(!used.has(undefined));
  await cleo.connection.ping();
  // If the machine stood still for too long, the server saw keys end.
  const late = times.some((time, index) => index > 0 && time - times[index - 1] > 3_900);
  if (!late) assert.deepEqual(closed, []);
});
