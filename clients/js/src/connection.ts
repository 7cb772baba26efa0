/**
 * The WebSocket of a session at the registry API. It connects again by itself, as the same session,
 * until `close`, or until the credential has ended.
 */

import type { CredentialKeeper } from "./credentials.js";
import { Emitter } from "./emitter.js";
import {
  Disconnected,
  ErrorCode,
  type ErrorObject,
  isErrorObject,
  Refused,
  TimedOut,
} from "./errors.js";
import {
  type AnswerData,
  CloseCode,
  comeBackInMs,
  type CommandData,
  type CommandName,
  type EventName,
  type ServerEvents,
  type UserMe,
} from "./protocol.js";
import { platformSocket, type SocketClass, type SocketLike } from "./socket.js";
import { Backoff, background } from "./timing.js";

export interface ConnectionOptions {
  /** The class of the WebSocket, if not the platform's. */
  WebSocket?: SocketClass | undefined;
  /** Milliseconds until a command is given up. */
  timeoutMs?: number | undefined;
  /** Milliseconds without a message, after which the server is asked whether it is there. */
  silenceMs?: number | undefined;
  backoff?: Backoff | undefined;
}

/** What happens to the connection itself. Events of the server have their own names. */
export interface ConnectionEvents {
  /** The socket is open and authenticated. `again`: it was open before. */
  "connection-open": { again: boolean };
  /** The socket was lost. The next attempt comes after `retryMs`. */
  "connection-lost": { code: number; reason: string; retryMs: number };
  /** It is over: it was closed here, or the credential has ended. */
  "connection-closed": { code: number; reason: string };
  /** An error that no request waits for. */
  "connection-error": { error: Refused; command: string | undefined; subgroup: string | undefined };
}

type Events = ConnectionEvents & { [N in EventName]: ServerEvents[N] };

interface Fields {
  subgroup?: string | undefined;
  key?: string | undefined;
  at?: number | undefined;
  to?: readonly string[] | undefined;
}

export interface RequestOptions<Data = unknown> extends Fields {
  timeoutMs?: number | undefined;
  /** Gets the answer before any event that comes after it, and before the promise resolves. */
  answered?: ((data: Data) => void) | undefined;
}

interface Pending {
  answered: ((data: never) => void) | undefined;
  resolve(data: unknown): void;
  reject(error: unknown): void;
  cancel(): void;
}

const TIMEOUT_MS = 20_000;
/** The server pings a silent socket, but a page does not see pings: so it asks itself. */
const SILENCE_MS = 50_000;
const PONG_MS = 15_000;
/** A connection that held so long was a good one: the next pause is short again. */
const STEADY_MS = 5_000;

export class Connection extends Emitter<Events> {
  /** Whether the socket is open and authenticated. */
  get open(): boolean {
    return this.#ready;
  }

  /** The user, as the server described it last. */
  user: UserMe | undefined;
  session: string | undefined;

  readonly #url: string;
  readonly #keeper: CredentialKeeper;
  readonly #class: SocketClass;
  readonly #timeoutMs: number;
  readonly #silenceMs: number;
  readonly #backoff: Backoff;
  readonly #pending = new Map<number, Pending>();
  readonly #subscriptions = new Map<string, CommandData<"subscribe">>();
  readonly #openers: ((first: boolean) => Promise<void>)[] = [];
  #waiting: { resolve(): void; reject(error: unknown): void }[] = [];
  #socket: SocketLike | undefined;
  #state = 0;
  #ready = false;
  #openedBefore = false;
  #closed: Error | undefined;
  #cancelRetry = () => {};
  #cancelSilence = () => {};
  readonly #unlisten: (() => void)[] = [];

  constructor(url: string, keeper: CredentialKeeper, options: ConnectionOptions = {}) {
    super();
    this.#url = url;
    this.#keeper = keeper;
    this.#class = options.WebSocket ?? platformSocket();
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#silenceMs = options.silenceMs ?? SILENCE_MS;
    this.#backoff = options.backoff ?? new Backoff();
    this.#unlisten.push(
      keeper.on("changed", (current) => {
        if (current === undefined) {
          this.#end(CloseCode.credentialGone, "the credential has ended");
        } else if (this.#ready) void this.#introduce(current.token).catch(() => {});
      }),
    );
    if (typeof addEventListener === "function" && typeof document !== "undefined") {
      const online = () => this.#connectNow();
      addEventListener("online", online);
      this.#unlisten.push(() => removeEventListener("online", online));
    }
    this.#connect();
  }

  /** Whether the server is reached over TLS. */
  get secure(): boolean {
    return this.#url.startsWith("wss:");
  }

  /** Milliseconds until a command is given up. */
  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  /** @internal Another socket of the same kind. */
  newSocket(url: string): SocketLike {
    return new this.#class(url);
  }

  /** Resolves when the socket is open; rejects if it ends before. */
  ready(): Promise<void> {
    if (this.#ready) return Promise.resolve();
    if (this.#closed) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Sends a command, and returns the data of its answer. While there is no connection, it waits
   * for one. If the connection is lost before the answer, it rejects with `Disconnected`: the
   * server may have done it.
   */
  async request<N extends CommandName>(
    command: N,
    data?: CommandData<N>,
    options: RequestOptions<AnswerData<N>> = {},
  ): Promise<AnswerData<N>> {
    const { timeoutMs = this.#timeoutMs, answered, ...fields } = options;
    if (!this.#ready) await within(this.ready(), timeoutMs, command);
    return (await this.#ask(command, data, fields, timeoutMs, answered)) as AnswerData<N>;
  }

  /** Sends a command without waiting. Returns whether there was a connection to send it on. Errors
   * come as `connection-error`. */
  tell(command: string, data: unknown, fields: Fields = {}): boolean {
    if (!this.#ready) return false;
    return this.#write({ command, ...fields, data });
  }

  /** Bytes that wait in this program, because the network takes no more. */
  get waitingBytes(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Asks for events beyond those that come anyway; also after each new connection. */
  async subscribe(event: CommandData<"subscribe">["event"], target?: string): Promise<void> {
    const topic = target === undefined ? { event } : { event, target };
    await this.request("subscribe", topic);
    this.#subscriptions.set(JSON.stringify([event, target]), topic);
  }

  async unsubscribe(event: CommandData<"subscribe">["event"], target?: string): Promise<void> {
    this.#subscriptions.delete(JSON.stringify([event, target]));
    await this.request("unsubscribe", target === undefined ? { event } : { event, target });
  }

  /** Milliseconds for a message to the server and back. */
  async ping(): Promise<number> {
    const begun = performance.now();
    await this.request("ping", {});
    return performance.now() - begun;
  }

  /** Closes it for good. */
  close(): void {
    this.#end(1000, "");
  }

  /** Work of this package at each new connection, before `connection-open`. */
  onOpen(work: (first: boolean) => Promise<void>): () => void {
    this.#openers.push(work);
    return () => void this.#openers.splice(this.#openers.indexOf(work), 1);
  }

  // Connecting -------------------------------------------------------------------------------------

  #connect(): void {
    const token = this.#keeper.current?.token;
    if (this.#closed) return;
    if (token === undefined) return this.#end(CloseCode.credentialGone, "there is no credential");
    let socket: SocketLike;
    try {
      socket = new this.#class(this.#url, "reileta.registry");
    } catch (error) {
      return this.#end(1006, error instanceof Error ? error.message : String(error));
    }
    this.#socket = socket;
    let opened = 0;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      opened = performance.now();
      void this.#begin(token, socket);
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket && typeof event.data === "string") this.#receive(event.data);
    };
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      if (opened > 0 && performance.now() - opened > STEADY_MS) this.#backoff.reset();
      this.#lost(code, reason);
    };
  }

  async #begin(token: string, socket: SocketLike): Promise<void> {
    const first = !this.#openedBefore;
    try {
      this.#listenForSilence();
      await this.#introduce(token);
      for (const topic of this.#subscriptions.values()) {
        await this.#ask("subscribe", topic, {}, this.#timeoutMs).catch(ignoreRefusal);
      }
      if (socket !== this.#socket) return;
      this.#ready = this.#openedBefore = true;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const { resolve } of waiting) resolve();
      for (const work of [...this.#openers]) await work(first);
      if (socket === this.#socket) this.emit("connection-open", { again: !first });
    } catch (error) {
      if (socket !== this.#socket) return;
      if (error instanceof Refused && error.code === ErrorCode.CredentialInvalid) {
        await this.#replaceCredential(token);
      } else if (error instanceof Refused && error.code === ErrorCode.QuotaReached) {
        this.#end(1013, error.message);
      } else socket.close();
    }
  }

  async #introduce(token: string): Promise<void> {
    const answer = await this.#ask("authenticate", { token }, {}, this.#timeoutMs);
    const identity = answer as AnswerData<"authenticate">;
    this.user = identity.user as UserMe;
    this.session = identity.session;
  }

  async #replaceCredential(token: string): Promise<void> {
    if (this.#keeper.current?.token === token) {
      try {
        await this.#keeper.refresh();
      } catch {
        // Without the server: the next attempt tries again.
      }
    }
    if (!this.#closed) this.#socket?.close();
  }

  #lost(code: number, reason: string): void {
    this.#socket = undefined;
    this.#ready = false;
    this.#cancelSilence();
    this.#rejectAll(new Disconnected());
    if (this.#closed) return;
    const asked = comeBackInMs(reason);
    let retryMs = asked === undefined ? this.#backoff.next() : asked + Math.random() * 1_000;
    if (code === CloseCode.tryAgainLater || code === CloseCode.tooMuch) {
      retryMs = Math.max(retryMs, 1_000);
    }
    const again = () => this.#connect();
    if (code === CloseCode.credentialGone) {
      // Its key was replaced, or the session has ended: a refresh tells.
      const used = this.#keeper.current;
      this.#keeper
        .refresh()
        .catch(() => {})
        .finally(() => {
          if (!this.#closed && this.#keeper.current === undefined) {
            this.#end(code, reason);
          } else if (!this.#closed) {
            this.#cancelRetry = background(this.#keeper.current === used ? retryMs : 0, again);
          }
        });
    } else {
      const timer = setTimeout(again, retryMs);
      this.#cancelRetry = () => clearTimeout(timer);
    }
    this.emit("connection-lost", { code, reason, retryMs });
  }

  #connectNow(): void {
    if (this.#socket !== undefined || this.#closed) return;
    this.#cancelRetry();
    this.#connect();
  }

  #end(code: number, reason: string): void {
    if (this.#closed) return;
    this.#closed = new Disconnected(reason || "the connection was closed");
    this.#cancelRetry();
    this.#cancelSilence();
    for (const unlisten of this.#unlisten) unlisten();
    const socket = this.#socket;
    this.#socket = undefined;
    this.#ready = false;
    socket?.close(1000);
    this.#rejectAll(this.#closed);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { reject } of waiting) reject(this.#closed);
    this.emit("connection-closed", { code, reason });
  }

  // Messages ---------------------------------------------------------------------------------------

  #ask(
    command: string,
    data: unknown,
    fields: Fields,
    timeoutMs: number,
    answered?: (data: never) => void,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const state = ++this.#state;
      const cancel = background(timeoutMs, () => {
        this.#pending.delete(state);
        reject(new TimedOut(command, timeoutMs));
      });
      this.#pending.set(state, { answered, resolve, reject, cancel });
      if (!this.#write({ state, command, ...fields, data })) {
        this.#pending.delete(state);
        cancel();
        reject(new Disconnected("not connected"));
      }
    });
  }

  #write(message: object): boolean {
    const socket = this.#socket;
    if (socket === undefined || socket.readyState !== 1) return false;
    socket.send(JSON.stringify(message));
    return true;
  }

  #receive(text: string): void {
    this.#listenForSilence();
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return; // data of a player that this engine can't decode
    }
    const { state, command, error } = message;
    if (state !== undefined) {
      const pending = this.#pending.get(state as number);
      if (pending === undefined) return;
      this.#pending.delete(state as number);
      pending.cancel();
      if (isErrorObject(error)) pending.reject(new Refused(error));
      else {
        pending.answered?.(message["data"] as never);
        pending.resolve(message["data"]);
      }
      return;
    }
    if (isErrorObject(error)) {
      this.emit("connection-error", {
        error: new Refused(error as ErrorObject),
        command: command as string | undefined,
        subgroup: message["subgroup"] as string | undefined,
      });
      return;
    }
    if (command === "update-user") this.#updateUser(message as ServerEvents["update-user"]);
    if (typeof command === "string") {
      this.emit(command as EventName, message as ServerEvents[EventName]);
    }
  }

  #updateUser(message: ServerEvents["update-user"]): void {
    const { data } = message;
    if (this.user !== undefined && data.id === this.user.id && "following" in data) {
      this.user = data as UserMe;
    }
  }

  #listenForSilence(): void {
    this.#cancelSilence();
    this.#cancelSilence = background(this.#silenceMs, () => {
      const socket = this.#socket;
      this.#ask("ping", {}, {}, PONG_MS).catch(() => {
        if (socket !== undefined && socket === this.#socket) {
          socket.close();
          this.#lost(1006, "the server is silent");
        }
      });
    });
  }

  #rejectAll(error: Error): void {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const one of pending) {
      one.cancel();
      one.reject(error);
    }
  }
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof Refused)) throw error;
}

function within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = background(ms, () => reject(new TimedOut(what, ms)));
    work.then(resolve, reject).finally(cancel);
  });
}
