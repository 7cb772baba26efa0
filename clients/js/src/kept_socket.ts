/** A WebSocket that comes back by itself, until `close`, or until the credential has ended. */

import type { CredentialKeeper, Credentials } from "./credentials.js";
import { Emitter } from "./emitter.js";
import { Disconnected } from "./errors.js";
import { CloseCode, comeBackInMs } from "./protocol.js";
import { platformSocket, type SocketClass, type SocketLike } from "./socket.js";
import { Backoff } from "./timing.js";

export interface ConnectionOptions {
  /** The class of the WebSocket, if not the platform's. */
  WebSocket?: SocketClass | undefined;
  /** Milliseconds until a command is given up. */
  timeoutMs?: number | undefined;
  /** Milliseconds without a message, after which the server is asked whether it is there. */
  silenceMs?: number | undefined;
  backoff?: Backoff | undefined;
}

/** How a socket ended. */
export interface Closed {
  code: number;
  reason: string;
}

/** The next attempt comes after `retryMs`. */
export interface Lost extends Closed {
  retryMs: number;
}

/** A connection that held so long was a good one: the next pause is short again. */
const STEADY_MS = 5_000;
/** The server has too much to do, or got too much from this program. */
const BUSY_PAUSE_MS = 1_000;
/** The credential may be the cause. */
const DOUBTFUL_PAUSE_MS = 250;

/** One socket after another. Its kinds say what happens on each. */
export abstract class KeptSocket<Events extends object> extends Emitter<Events> {
  protected readonly keeper: CredentialKeeper;
  readonly #class: SocketClass;
  readonly #backoff: Backoff;
  readonly #unlisten: (() => void)[] = [];
  #waiting: { resolve(): void; reject(error: unknown): void }[] = [];
  #socket: SocketLike | undefined;
  #ready = false;
  #readyBefore = false;
  #ended: Error | undefined;
  #losses = 0;
  #cancelRetry = () => {};

  protected constructor(keeper: CredentialKeeper, options: ConnectionOptions) {
    super();
    this.keeper = keeper;
    this.#class = options.WebSocket ?? platformSocket();
    this.#backoff = options.backoff ?? new Backoff();
  }

  /** Whether the socket can be used. */
  get open(): boolean {
    return this.#ready;
  }

  /** Resolves when the socket can be used; rejects if it ends for good before. */
  ready(): Promise<void> {
    if (this.#ready) return Promise.resolve();
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Closes it for good. */
  close(): void {
    this.end(1000, "");
  }

  /** @internal Another socket of the same class, which nobody keeps. */
  newSocket(url: string): SocketLike {
    return new this.#class(url);
  }

  // What differs -----------------------------------------------------------------------------------

  /** The address and the subprotocol of the next socket. */
  protected abstract address(token: string): [url: string, subprotocol: string];

  /** A socket is open. */
  protected opened(_token: string, _socket: SocketLike): void {}

  /** A message has come. */
  protected abstract received(text: string): void;

  /** There are new keys of the same session. */
  protected renewed(_token: string): void {}

  /** A socket is gone. Another one follows, unless this calls `end`. */
  protected abstract dropped(code: number, reason: string): void;

  /** Whether the credential is checked before the next attempt. `opened`: the server took the
   * socket. */
  protected isDoubtful(code: number, _opened: boolean): boolean {
    return code === CloseCode.credentialGone;
  }

  /** Finds out whether the credential is still good, and replaces it if not. */
  protected abstract checkCredential(): Promise<void>;

  /** Tells of a lost socket. */
  protected abstract tellLost(lost: Lost): void;

  /** It has ended for good; `error` is for those who still wait. */
  protected abstract over(closed: Closed, error: Error): void;

  // For its kinds ----------------------------------------------------------------------------------

  /** The socket of now, which may not be usable yet. */
  protected get socket(): SocketLike | undefined {
    return this.#socket;
  }

  protected get ended(): Error | undefined {
    return this.#ended;
  }

  /** Begins. Its kinds call it when they are complete. */
  protected start(): void {
    this.#unlisten.push(
      this.keeper.on("changed", (current: Credentials | undefined) => {
        if (current === undefined) this.end(CloseCode.credentialGone, "the credential has ended");
        else if (this.#ready) this.renewed(current.token);
      }),
    );
    if (typeof addEventListener === "function" && typeof document !== "undefined") {
      const online = () => this.#connect();
      addEventListener("online", online);
      this.#unlisten.push(() => removeEventListener("online", online));
    }
    this.#connect();
  }

  /** The socket can be used from now on. Returns whether one could be used before. */
  protected becomeReady(): boolean {
    const before = this.#readyBefore;
    this.#ready = this.#readyBefore = true;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
    return before;
  }

  /** Sends a message, if there is a socket to send it on. */
  protected sendMessage(message: object): boolean {
    const socket = this.#socket;
    if (socket === undefined || socket.readyState !== 1) return false;
    socket.send(JSON.stringify(message));
    return true;
  }

  /** Gives up the socket of now without waiting for its end. */
  protected giveUp(reason: string): void {
    this.#socket?.close();
    this.#lose(1006, reason, true);
  }

  /** Ends it for good. */
  protected end(code: number, reason: string): void {
    if (this.#ended) return;
    this.#ended = new Disconnected(reason || "the connection was closed");
    this.#cancelRetry();
    for (const unlisten of this.#unlisten) unlisten();
    const socket = this.#socket;
    this.#socket = undefined;
    this.#ready = false;
    socket?.close(1000);
    const error = this.#ended;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.over({ code, reason }, error);
  }

  // Connecting -------------------------------------------------------------------------------------

  #connect(): void {
    if (this.#ended || this.#socket !== undefined) return;
    this.#cancelRetry();
    const token = this.keeper.current?.token;
    if (token === undefined) return this.end(CloseCode.credentialGone, "there is no credential");
    let socket: SocketLike;
    try {
      socket = new this.#class(...this.address(token));
    } catch (error) {
      return this.end(1006, error instanceof Error ? error.message : String(error));
    }
    this.#socket = socket;
    let openedAt: number | undefined;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      openedAt = performance.now();
      this.opened(token, socket);
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket && typeof data === "string") this.received(data);
    };
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      const steady = openedAt !== undefined && performance.now() - openedAt > STEADY_MS;
      if (steady) this.#backoff.reset();
      this.#lose(code, reason, openedAt !== undefined);
    };
  }

  #lose(code: number, reason: string, opened: boolean): void {
    this.#socket = undefined;
    this.#ready = false;
    this.dropped(code, reason);
    if (this.#ended) return;
    const asked = comeBackInMs(reason);
    const doubtful = this.isDoubtful(code, opened);
    let retryMs = asked === undefined ? this.#backoff.next() : asked + Math.random() * 1_000;
    if (doubtful) retryMs = Math.max(retryMs, DOUBTFUL_PAUSE_MS);
    if (code === CloseCode.tryAgainLater || code === CloseCode.tooMuch) {
      retryMs = Math.max(retryMs, BUSY_PAUSE_MS);
    }
    void this.#comeBack(retryMs, doubtful);
    this.tellLost({ code, reason, retryMs });
  }

  async #comeBack(retryMs: number, doubtful: boolean): Promise<void> {
    const loss = ++this.#losses;
    let pauseMs = retryMs;
    if (doubtful) {
      const used = this.keeper.current;
      await this.checkCredential().catch(() => {}); // without the server, the next attempt tells
      if (this.keeper.current !== used) pauseMs = Math.min(pauseMs, DOUBTFUL_PAUSE_MS);
      // The browser may have come online meanwhile, and a socket with it.
      if (this.#ended || this.#socket !== undefined || loss !== this.#losses) return;
    }
    const timer = setTimeout(() => this.#connect(), pauseMs);
    this.#cancelRetry = () => clearTimeout(timer);
  }
}
