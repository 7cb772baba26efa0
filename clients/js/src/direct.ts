/**
 * A room's own connection to the node on which its instance lives, if the node takes such.
 *
 * What players say comes and goes over it, sooner than over the server. Who is inside, moderation and
 * the snapshots stay with the server. If the node can't be reached, or the connection is lost, the
 * room goes on over the server.
 *
 * The order is kept: what the node sends waits until the server says that it sends nothing more
 * (`instance-direct`), and what this player says goes to the node once the node has all that went
 * over the server.
 */

import type { Connection } from "./connection.js";
import { Disconnected } from "./errors.js";
import { Requests } from "./requests.js";
import { Silence } from "./silence.js";
import type { SocketLike } from "./socket.js";
import { background } from "./timing.js";

const CONNECT_MS = 5_000;
/** Until the next attempt; doubled each time, up to `PAUSE_MAX_MS`. */
const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 60_000;
const STEADY_MS = 30_000;
/** The node pings a silent socket, but a page does not see pings: so it asks itself. */
const SILENCE_MS = 20_000;
const PONG_MS = 10_000;
/** Messages of the node that wait for the server's word. */
const WAITING = 4096;

export interface Said {
  player: string;
  key?: string;
  at?: number;
  data: unknown;
}

interface Fields {
  key?: string | undefined;
  at?: number | undefined;
  to?: readonly string[] | undefined;
}

/** @internal Made and used by `Room` alone. */
export class Direct {
  readonly #connection: Connection;
  readonly #instance: string;
  readonly #take: (said: Said) => void;
  readonly #rejoin: () => Promise<void>;
  readonly #requests = new Requests((message) => this.#write(message));
  readonly #silence = new Silence(
    SILENCE_MS,
    () => this.#ask("ping", {}, {}, PONG_MS),
    () => {
      this.#socket?.close();
      this.#lost(performance.now());
    },
  );
  #begun = false;
  #offered = false;
  #wanted = true;
  #sends = false;
  #over = false;
  #trying = false;
  #socket: SocketLike | undefined;
  #held: Said[] = [];
  #pauseMs = PAUSE_MS;
  #cancelRetry = () => {};

  /** `take` gets what players say; `rejoin` asks the server for a snapshot. */
  constructor(
    connection: Connection,
    instance: string,
    take: (said: Said) => void,
    rejoin: () => Promise<void>,
  ) {
    this.#connection = connection;
    this.#instance = instance;
    this.#take = take;
    this.#rejoin = rejoin;
  }

  /** Whether messages come over it. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Bytes that wait in this program, because the network takes no more. */
  get waitingBytes(): number {
    return this.#sends ? (this.#socket?.bufferedAmount ?? 0) : this.#connection.waitingBytes;
  }

  /** A snapshot came over the server, and so will what follows; or there is no server. */
  snapshot(offered: boolean): void {
    this.#begun = this.#sends = false;
    this.#held = [];
    this.#close();
    this.#offered = offered;
    this.#tryLater(0);
  }

  /** Whether to connect when the node takes connections. */
  want(on: boolean): void {
    this.#wanted = on;
    if (on) this.#tryLater(0);
  }

  /** The event `instance-direct`. */
  hear(state: "offered" | "begun"): void {
    if (state === "offered") {
      this.#offered = true;
      this.#tryLater(0);
      return;
    }
    this.#begun = true;
    const held = this.#held;
    this.#held = [];
    for (const said of held) this.#take(said);
    if (this.#socket === undefined) void this.#fallBack();
    else void this.#speak(this.#socket);
  }

  /** The player is not inside any more. */
  end(): void {
    this.#over = true;
    this.#cancelRetry();
    this.#close();
  }

  /** Sends a message; resolves when the instance has taken it. */
  async request(data: unknown, to: readonly string[] | undefined): Promise<void> {
    if (!this.#sends) {
      const fields = { subgroup: this.#instance, to };
      await this.#connection.request("instance-data", data as never, fields);
      return;
    }
    await this.#ask("instance-data", data, { to });
  }

  /** Sends a value, without waiting for an answer. */
  tell(data: unknown, fields: Fields): void {
    const whole = { subgroup: this.#instance, ...fields };
    if (this.#sends) this.#write({ command: "instance-data", ...whole, data });
    else this.#connection.tell("instance-data", data, whole);
  }

  // Connecting -------------------------------------------------------------------------------------

  #tryLater(ms: number): void {
    this.#cancelRetry();
    if (!this.#over) this.#cancelRetry = background(ms, () => void this.#try());
  }

  async #try(): Promise<void> {
    if (this.#trying || this.#over || this.#begun || !this.#offered) return;
    if (!this.#wanted) return;
    if (!this.#connection.open || this.#socket !== undefined) return;
    this.#trying = true;
    this.#offered = false;
    try {
      const way = await this.#connection.request("instance-ticket", undefined as never, {
        subgroup: this.#instance,
      });
      if (way.secure || !this.#connection.secure) this.#connect(way);
    } catch {
      // The room goes on over the server.
    } finally {
      this.#trying = false;
    }
  }

  #connect(way: { address: string; secure: boolean; ticket: string }): void {
    const url = `${way.secure ? "wss" : "ws"}://${way.address}/api/ws`;
    let socket: SocketLike;
    try {
      socket = this.#connection.newSocket(url);
    } catch {
      return;
    }
    this.#socket = socket;
    const opened = performance.now();
    let entered = false;
    const tooLate = background(CONNECT_MS, () => socket.close());
    socket.onopen = () => {
      const data = { ticket: way.ticket };
      socket.send(JSON.stringify({ state: 0, command: "authenticate", data }));
    };
    socket.onmessage = (event) => {
      if (socket !== this.#socket || typeof event.data !== "string") return;
      this.#silence.heard();
      let message: Record<string, unknown>;
      try {
        message = JSON.parse(event.data) as Record<string, unknown>;
      } catch {
        return; // data of a player that this engine can't decode
      }
      if (entered) this.#receive(message);
      else if (message["state"] === 0 && message["error"] === undefined) {
        entered = true;
        tooLate();
      } else socket.close();
    };
    socket.onerror = () => {};
    socket.onclose = () => {
      tooLate();
      if (socket === this.#socket) this.#lost(opened);
    };
  }

  #lost(opened: number): void {
    this.#socket = undefined;
    this.#sends = false;
    this.#silence.stop();
    this.#requests.rejectAll(new Disconnected());
    if (this.#over) return;
    if (performance.now() - opened > STEADY_MS) this.#pauseMs = PAUSE_MS;
    if (this.#begun) void this.#fallBack();
    else {
      this.#offered = true;
      this.#tryLater(this.#pauseMs);
    }
    this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MAX_MS);
  }

  /** The connection was lost: only a snapshot tells what is missing. */
  async #fallBack(): Promise<void> {
    try {
      await this.#rejoin();
    } catch {
      background(PAUSE_MS, () => {
        if (this.#begun && !this.#over) void this.#fallBack();
      });
    }
  }

  /** Speaks to the node once it has all that went over the server. */
  async #speak(socket: SocketLike): Promise<void> {
    try {
      await this.#connection.request("instance-data", null as never, {
        subgroup: this.#instance,
        to: [],
      });
    } catch {
      return;
    }
    this.#sends = this.#begun && socket === this.#socket;
  }

  #close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#sends = false;
    this.#silence.stop();
    this.#requests.rejectAll(new Disconnected());
    socket?.close(1000);
  }

  // Messages ---------------------------------------------------------------------------------------

  async #ask(command: string, data: unknown, fields: Fields, timeoutMs?: number): Promise<void> {
    const message = { subgroup: this.#instance, ...fields, data };
    await this.#requests.ask(command, message, timeoutMs ?? this.#connection.timeoutMs);
  }

  #write(message: object): boolean {
    const socket = this.#socket;
    if (socket === undefined || socket.readyState !== 1) return false;
    socket.send(JSON.stringify(message));
    return true;
  }

  #receive(message: Record<string, unknown>): void {
    if (this.#requests.take(message)) return;
    const { command, subgroup, data } = message;
    if (command !== "instance-data" || subgroup !== this.#instance) return;
    if (typeof data !== "object" || data === null) return;
    if (this.#begun) this.#take(data as Said);
    else if (this.#held.length < WAITING) this.#held.push(data as Said);
    else this.#socket?.close();
  }
}
