/**
 * The WebSocket of a session at the registry API. It connects again by itself, as the same session,
 * until `close`, or until the credential has ended.
 */

import type { CredentialKeeper } from "./credentials.js";
import { Disconnected, ErrorCode, type ErrorObject, isErrorObject, Refused, TimedOut } from "./errors.js";
import { type Closed, type ConnectionOptions, KeptSocket, type Lost } from "./kept_socket.js";
import type {
  AnswerData,
  CommandData,
  CommandName,
  EventName,
  ServerEvents,
  UserMe,
} from "./protocol.js";
import { Requests } from "./requests.js";
import { Silence } from "./silence.js";
import type { SocketLike } from "./socket.js";
import { background } from "./timing.js";

/** What happens to the connection itself. Events of the server have their own names. */
export interface ConnectionEvents {
  /** The socket is open and authenticated. `again`: it was open before. */
  "connection-open": { again: boolean };
  /** The socket was lost. The next attempt comes after `retryMs`. */
  "connection-lost": Lost;
  /** It is over: it was closed here, or the credential has ended. */
  "connection-closed": Closed;
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

const TIMEOUT_MS = 20_000;
/** The server pings a silent socket, but a page does not see pings: so it asks itself. */
const SILENCE_MS = 50_000;
const PONG_MS = 15_000;

export class Connection extends KeptSocket<Events> {
  /** The user, as the server described it last. */
  user: UserMe | undefined;
  session: string | undefined;
  /** Milliseconds until a command is given up. */
  readonly timeoutMs: number;

  readonly #url: string;
  readonly #requests: Requests;
  readonly #silence: Silence;
  readonly #subscriptions = new Map<string, CommandData<"subscribe">>();
  readonly #openers: ((first: boolean) => Promise<void>)[] = [];

  constructor(url: string, keeper: CredentialKeeper, options: ConnectionOptions = {}) {
    super(keeper, options);
    this.#url = url;
    this.timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#requests = new Requests((message) => this.sendMessage(message));
    this.#silence = new Silence(
      options.silenceMs ?? SILENCE_MS,
      () => this.#requests.ask("ping", { data: {} }, PONG_MS),
      () => this.giveUp("the server is silent"),
    );
    this.start();
  }

  /** Whether the server is reached over TLS. */
  get secure(): boolean {
    return this.#url.startsWith("wss:");
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
    const { timeoutMs = this.timeoutMs, answered, ...fields } = options;
    if (!this.open) await within(this.ready(), timeoutMs, command);
    const answer = await this.#requests.ask(command, { ...fields, data }, timeoutMs, answered);
    return answer as AnswerData<N>;
  }

  /** Sends a command without waiting. Returns whether there was a connection to send it on. Errors
   * come as `connection-error`. */
  tell(command: string, data: unknown, fields: Fields = {}): boolean {
    return this.open && this.sendMessage({ command, ...fields, data });
  }

  /** Bytes that wait in this program, because the network takes no more. */
  get waitingBytes(): number {
    return this.socket?.bufferedAmount ?? 0;
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

  /** Work of this package at each new connection, before `connection-open`. */
  onOpen(work: (first: boolean) => Promise<void>): () => void {
    this.#openers.push(work);
    return () => void this.#openers.splice(this.#openers.indexOf(work), 1);
  }

  // Connecting -------------------------------------------------------------------------------------

  protected override address(): [string, string] {
    return [this.#url, "reileta.registry"];
  }

  protected override opened(token: string, socket: SocketLike): void {
    this.#silence.heard();
    void this.#begin(token, socket);
  }

  protected override renewed(token: string): void {
    void this.#introduce(token).catch(() => {});
  }

  protected override dropped(): void {
    this.#silence.stop();
    this.#requests.rejectAll(new Disconnected());
  }

  protected override checkCredential(): Promise<void> {
    return this.keeper.refresh();
  }

  protected override tellLost(lost: Lost): void {
    this.emit("connection-lost", lost);
  }

  protected override over(closed: Closed, error: Error): void {
    this.#silence.stop();
    this.#requests.rejectAll(error);
    this.emit("connection-closed", closed);
  }

  async #begin(token: string, socket: SocketLike): Promise<void> {
    try {
      await this.#introduce(token);
      for (const data of this.#subscriptions.values()) {
        await this.#requests.ask("subscribe", { data }, this.timeoutMs).catch(ignoreRefusal);
      }
      if (socket !== this.socket) return;
      const again = this.becomeReady();
      for (const work of [...this.#openers]) await work(!again);
      if (socket === this.socket) this.emit("connection-open", { again });
    } catch (error) {
      if (socket !== this.socket) return;
      const code = error instanceof Refused ? error.code : undefined;
      if (code === ErrorCode.QuotaReached) return this.end(1013, (error as Refused).message);
      if (code === ErrorCode.CredentialInvalid && this.keeper.current?.token === token) {
        await this.checkCredential().catch(() => {}); // without the server, the next attempt tells
      }
      socket.close();
    }
  }

  async #introduce(token: string): Promise<void> {
    const answer = await this.#requests.ask("authenticate", { data: { token } }, this.timeoutMs);
    const identity = answer as AnswerData<"authenticate">;
    this.user = identity.user as UserMe;
    this.session = identity.session;
  }

  // Messages ---------------------------------------------------------------------------------------

  protected override received(text: string): void {
    this.#silence.heard();
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return; // data of a player that this engine can't decode
    }
    if (this.#requests.take(message)) return;
    const { command, error } = message;
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
