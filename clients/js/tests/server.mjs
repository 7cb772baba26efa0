// A real server for the tests, and a proxy that loses connections. REILETA_COMMAND is the command
// as JSON, such as `["reileta"]`.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const COMMAND = JSON.parse(process.env.REILETA_COMMAND ?? '["reileta"]');
const START_MS = 120_000;

/** An address of this machine that only this process uses, where all of 127.0.0.0/8 is this machine: so
 * nobody else takes a port between its choice and its use, or while a server starts again. */
const OWN = `127.${64 + ((process.pid >> 16) & 63)}.${(process.pid >> 8) & 255}.${process.pid & 255}`;
export const HOST = await listens(OWN).then(() => OWN, () => "127.0.0.1");

async function listens(host) {
  const server = net.createServer().listen(0, host);
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A port of `HOST` that nobody uses. */
export const freePort = () => listens(HOST);

export class Server {
  static async start(...options) {
    const server = new Server();
    server.folder = await mkdtemp(path.join(tmpdir(), "reileta-js-"));
    server.port = await freePort();
    server.url = `http://${HOST}:${server.port}`;
    server.options = options;
    await server.run();
    return server;
  }

  async run() {
    const data = path.join(this.folder, "data");
    const [program, ...before] = COMMAND;
    const options = ["serve", "--data", data, "--host", HOST, "--port", String(this.port), ...this.options];
    this.process = spawn(program, [...before, ...options], { stdio: ["ignore", "ignore", "pipe"] });
    let complaints = "";
    this.process.stderr.on("data", (chunk) => (complaints += chunk));
    const begun = Date.now();
    for (;;) {
      if (this.process.exitCode !== null) throw new Error(`the server ended: ${complaints}`);
      const ready = await fetch(`${this.url}/readyz`).then((answer) => answer.ok, () => false);
      if (ready) return;
      if (Date.now() - begun > START_MS) throw new Error(`the server does not start: ${complaints}`);
      await sleep(100);
    }
  }

  /** A figure of `/metrics`. */
  async metric(name) {
    const text = await fetch(`${this.url}/metrics`).then((answer) => answer.text());
    return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
  }

  async kill() {
    const gone = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await gone;
  }

  async stop() {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, "exit");
      this.process.kill("SIGTERM");
      await gone;
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Passes connections on to a port, until it is told not to. `pause` makes its clients slow readers. */
export class Proxy {
  static async to(port) {
    const proxy = new Proxy();
    proxy.pairs = new Set();
    proxy.server = net.createServer((client) => proxy.connect(client, port));
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  connect(client, port) {
    const server = net.connect(port, HOST);
    const pair = { client, server };
    this.pairs.add(pair);
    client.pipe(server);
    server.pipe(client);
    const end = () => {
      client.destroy();
      server.destroy();
      this.pairs.delete(pair);
    };
    for (const socket of [client, server]) socket.on("error", end).on("close", end);
  }

  /** Reads nothing more from the server, until `resume`. */
  pause() {
    for (const { client, server } of this.pairs) {
      server.unpipe(client);
      server.pause();
    }
  }

  resume() {
    for (const { client, server } of this.pairs) server.pipe(client);
  }

  /** Ends all connections without a word. */
  cut() {
    for (const { client, server } of this.pairs) {
      client.destroy();
      server.destroy();
    }
  }

  close() {
    this.cut();
    this.server.close();
  }
}

/** Waits until a condition holds. */
export async function until(holds, what = String(holds), ms = 30_000) {
  const begun = Date.now();
  while (!holds()) {
    if (Date.now() - begun > ms) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(10);
  }
}
