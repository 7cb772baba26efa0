import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Client, Refused } from "../dist/index.js";
import { COMMAND, freePort, HOST, Server, until } from "./server.mjs";

const PASSWORD = "only an example";
const clients = [];
let server;
let port;
let node;

before(async () => {
  port = await freePort();
  const options = ["--federation-allow", "127.0.0.0/8", "--federation-insecure", `${HOST}:${port}`];
  server = await Server.start("--rate-limits", "off", ...options);
});

after(async () => {
  for (const client of clients) client.close();
  node?.kill("SIGKILL");
  await server.stop();
});

async function user(name) {
  const client = new Client(server.url);
  clients.push(client);
  await client.register(`${name}_direct`, PASSWORD, name);
  return client;
}

async function eventually(holds) {
  while (!(await holds())) await sleep(50);
}

function runNode(token) {
  const [program, ...first] = COMMAND;
  const gateway = server.url.replace("http", "ws");
  const words = [...first, "ins", "--gateway", gateway, "--direct", `${HOST}:${port}`];
  const env = { ...process.env, REILETA_NODE_TOKEN: token };
  return spawn(program, words, { env, stdio: "ignore" });
}

test("players speak over the node, and go on without it", async () => {
  const [ann, ben] = [await user("ann"), await user("ben")];
  const direct = { address: `${HOST}:${port}`, secure: false };
  const made = await ann.http.put("/api/nodes", { body: { title: "Attic", direct } });
  node = runNode(made.token);
  await eventually(async () => {
    const found = await ann.http.get("/api/nodes/{ref}", { path: { ref: made.id } });
    return found.status === "online";
  });
  const { id: world } = await ann.http.put("/api/worlds", { body: { title: "A meadow" } });
  const fields = { world, node: made.id, tags: ["avr:public"] };
  const { id } = await ann.http.put("/api/instances", { body: fields });
  const [first, second] = [await ann.join(id), await ben.join(id)];
  const heard = [];
  second.on("message", ({ data }) => heard.push(data));
  await until(() => first.direct && second.direct);
  for (let number = 0; number < 20; number++) await first.send(number);
  await until(() => heard.length === 20);
  assert.deepEqual(heard, [...Array(20).keys()]);
  first.set("pose", { x: 1 });
  await until(() => second.value(first.player, "pose")?.x === 1);
  // The node sends everything, so fewer values come over the server.
  await second.interest({ rate: 5 });
  assert.equal(second.direct, false);
  await second.interest({});
  await until(() => second.direct);
  await first.moderate({ player: second.player }, "mute");
  await assert.rejects(second.send("muted"), Refused);
  await first.moderate({ player: second.player }, "unmute");
  let back = false;
  second.on("back", () => (back = true));
  node.kill("SIGKILL");
  await until(() => !first.direct && !second.direct);
  node = runNode(made.token);
  await until(() => back);
  await eventually(() => first.send("again").then(() => true, () => false));
  await until(() => heard.at(-1) === "again");
  const ended = second.once("ended");
  await first.moderate({ player: second.player }, "kick");
  assert.equal((await ended).reason, "kicked");
});
