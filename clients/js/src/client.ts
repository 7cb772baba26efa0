/** One user at one server: the way into this package. */

import { Connection } from "./connection.js";
import {
  BrowserStore,
  CredentialKeeper,
  type CredentialStore,
  MemoryStore,
} from "./credentials.js";
import { Disconnected, ErrorCode, Refused } from "./errors.js";
import { type EnvelopeOf, Http } from "./http.js";
import type { ConnectionOptions } from "./kept_socket.js";
import type { QueueEntry, UserMe } from "./protocol.js";
import { Room } from "./room.js";
import { SessionSocket } from "./session.js";

export interface ClientOptions extends ConnectionOptions {
  fetch?: typeof fetch | undefined;
  /** Where credentials are kept: default for a page the browser, so that a reload stays logged in;
   * else memory. */
  store?: CredentialStore | undefined;
}

export interface Standing {
  /** The place in the queue from 1; undefined while an invitation is needed. */
  readonly position: number | undefined;
  readonly state: QueueEntry["state"];
  /** How many wait, as far as it is known. */
  readonly queued: number | undefined;
}

export interface JoinOptions {
  /** Waits in the queue while the instance is full or an invitation is needed. */
  wait?: boolean | undefined;
  /** Hears of the place in the queue as it changes. */
  onQueue?: ((standing: Standing) => void) | undefined;
  /** Gives up, and leaves the queue. */
  signal?: AbortSignal | undefined;
}

type LoginAnswer = EnvelopeOf<"post", "/api/auth/login">;

/** The user's access to a server. It holds the credential, one connection, and the rooms. */
export class Client {
  readonly http: Http;
  readonly credentials: CredentialKeeper;
  readonly #options: ClientOptions;
  #connection: Connection | undefined;
  #sessionSocket: SessionSocket | undefined;
  #closed = false;

  /** `url` is the server's, such as `http://127.0.0.1:3032`, with its base path. */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const base = String(url).replace(/\/+$/, "");
    this.#options = options;
    this.http = new Http(base, { fetch: options.fetch, token: () => this.token });
    this.credentials = new CredentialKeeper(this.http, options.store ?? defaultStore(base));
  }

  get token(): string | undefined {
    return this.credentials.current?.token;
  }

  get loggedIn(): boolean {
    return this.token !== undefined;
  }

  /** Logs in; an earlier session that is still alive continues. */
  async login(username: string, password: string): Promise<UserMe> {
    const session_id = this.credentials.current?.session;
    const body = session_id === undefined ? { username, password } : { username, password, session_id };
    return this.#take(await this.http.whole("post", "/api/auth/login", { body, token: null }));
  }

  async register(username: string, password: string, displayname?: string): Promise<UserMe> {
    const body = displayname === undefined ? { username, password } : { username, password, displayname };
    return this.#take(await this.http.whole("post", "/api/auth/register", { body, token: null }));
  }

  /** Makes a temporary account, if the server does that: it looks around, and makes nothing. */
  async registerTemporarily(displayname?: string): Promise<UserMe> {
    const body = displayname === undefined ? {} : { displayname };
    return this.#take(await this.http.whole("post", "/api/auth/temporary", { body, token: null }));
  }

  /** Makes the temporary account a full one. Its session goes on. */
  async keepAccount(username: string, password: string, displayname?: string): Promise<UserMe> {
    const body = displayname === undefined ? { username, password } : { username, password, displayname };
    return (await this.http.post("/api/users/{ref}", { path: { ref: "@me" }, body })) as UserMe;
  }

  /** Logs in, or makes the account if there is none. */
  async enter(username: string, password: string): Promise<UserMe> {
    try {
      return await this.login(username, password);
    } catch (error) {
      const unknown = error instanceof Refused && error.code === ErrorCode.LoginInvalid;
      if (!unknown) throw error;
      try {
        return await this.register(username, password);
      } catch (second) {
        // The name is taken: the password was wrong.
        throw second instanceof Refused && second.code === ErrorCode.AuthInvalid ? error : second;
      }
    }
  }

  /** Ends the session: its rooms, sockets and keys. */
  async logout(): Promise<void> {
    try {
      if (this.loggedIn) await this.http.delete("/api/auth/logout", {});
    } catch (error) {
      if (!(error instanceof Refused && error.status === 401)) throw error;
    }
    this.credentials.set(undefined);
    this.#forgetSockets();
  }

  /** The socket of the registry API, opened at first use. */
  get connection(): Connection {
    this.#ensureOpen();
    this.#connection ??= this.#opened(
      new Connection(`${socketBase(this.http.base)}/api/ws`, this.credentials, this.#options),
    );
    return this.#connection;
  }

  /** The socket of the session API, opened at first use: the state and the resources. */
  get session(): SessionSocket {
    this.#ensureOpen();
    this.#sessionSocket ??= new SessionSocket(
      `${socketBase(this.http.base)}/ws/user`,
      this.http,
      this.credentials,
      this.#options,
    );
    return this.#sessionSocket;
  }

  /** Goes into an instance, by its id or name. */
  async join(instance: string, options: JoinOptions = {}): Promise<Room> {
    const { signal } = options;
    for (;;) {
      signal?.throwIfAborted();
      try {
        const { connection } = this;
        let room: Room | undefined;
        await connection.request(
          "instance-join",
          { instance },
          { answered: (welcome) => (room = new Room(connection, welcome)) },
        );
        if (room !== undefined) return room;
      } catch (error) {
        const closed = error instanceof Refused && NEEDS_A_SEAT.has(error.code);
        if (!closed || !options.wait) throw error;
      }
      await this.#waitForSeat(instance, options);
    }
  }

  /** Closes the sockets. The session stays alive, so that it can be continued. */
  close(): void {
    this.#closed = true;
    this.#forgetSockets();
    this.credentials.close();
  }

  async #waitForSeat(instance: string, { onQueue, signal }: JoinOptions): Promise<void> {
    const { connection } = this;
    const { id } = await this.http.get("/api/instances/{ref}", { path: { ref: instance } });
    const path = { ref: id };
    const tell = (entry: QueueEntry, queued?: number) =>
      onQueue?.({ state: entry.state, position: entry.position, queued });
    const unlisten: (() => void)[] = [];
    /** How much the socket has told. What it tells while an answer is on its way is newer than that. */
    let told = 0;
    let over = false;
    try {
      await new Promise<void>((resolve, reject) => {
        const aborted = () => reject(signal?.reason);
        signal?.addEventListener("abort", aborted, { once: true });
        unlisten.push(() => signal?.removeEventListener("abort", aborted));
        const mine = (user: string) => user.startsWith(`${connection.user?.id}@`);
        const look = (entry: QueueEntry, queued?: number) => {
          if (entry.state === "admitted") resolve();
          else if (!over) tell(entry, queued);
        };
        const answered = (since: number, entry: QueueEntry, queued?: number) => {
          if (told === since || entry.state === "admitted") look(entry, queued);
        };
        unlisten.push(
          connection.on("instance-candidate", ({ subgroup, data }) => {
            if (subgroup !== id || !mine(data.user)) return;
            told++;
            if (data.entry) look(data.entry);
            else if (data.reason === "expired" || data.reason === "joined") resolve();
            else reject(new QueueEnded(data.reason));
          }),
          connection.on("instance-queue", ({ subgroup, data }) => {
            if (subgroup !== id || !data.entry) return;
            told++;
            look(data.entry, data.queued);
          }),
          connection.on("connection-closed", ({ reason }) => reject(new Disconnected(reason))),
          // The place is kept for a minute: asking again tells what happened meanwhile.
          connection.onOpen(async () => void ask().catch(reject)),
        );
        /** Whether there is a place in line. */
        const found = async () => {
          const since = told;
          const { entry, queued } = await this.http.get("/api/instances/{ref}/queue", { path });
          if (entry) answered(since, entry, queued);
          return Boolean(entry);
        };
        // A page that is loaded again has its place: the server is not asked for what it would refuse,
        // which a browser's console shows as an error.
        const ask = async () => {
          if (await found()) return;
          const since = told;
          try {
            answered(since, await this.http.post("/api/instances/{ref}/candidate", { path }));
          } catch (error) {
            if (!(error instanceof Refused)) throw error;
            if (error.code === ErrorCode.AlreadyConnected) return resolve();
            if (error.code !== ErrorCode.AlreadyCandidate) throw error;
            if (!(await found())) resolve();
          }
        };
        ask().catch(reject);
      });
    } catch (error) {
      if (signal?.aborted) {
        await this.http.delete("/api/instances/{ref}/candidate", { path }).catch(() => {});
      }
      throw error;
    } finally {
      over = true;
      for (const stop of unlisten) stop();
    }
  }

  #take({ data: login, time }: LoginAnswer): UserMe {
    // Times of the server's clock count from its answer on.
    const ends = (end: number) => Date.now() + (end - time);
    this.#forgetSockets();
    this.credentials.set({
      session: login.id,
      token: login.token,
      refresh: login.refresh,
      token_until: ends(login.access_expires),
      refresh_until: ends(login.refresh_expires),
    });
    return login.user as UserMe;
  }

  #opened(connection: Connection): Connection {
    connection.on("connection-closed", () => {
      if (this.#connection === connection) this.#connection = undefined;
    });
    return connection;
  }

  #ensureOpen(): void {
    if (this.#closed) throw new Disconnected("the client was closed");
  }

  #forgetSockets(): void {
    this.#connection?.close();
    this.#connection = undefined;
    this.#sessionSocket?.close();
    this.#sessionSocket = undefined;
  }
}

/** The place in the queue is gone. */
export class QueueEnded extends Error {
  override readonly name = "QueueEnded";
  constructor(readonly reason: string) {
    super(`the place in the queue is gone: ${reason}`);
  }
}

const NEEDS_A_SEAT: ReadonlySet<number> = new Set([ErrorCode.InstanceFull, ErrorCode.NotAllowed]);

function defaultStore(base: string): CredentialStore {
  const page = typeof document !== "undefined" && typeof localStorage !== "undefined";
  return page ? new BrowserStore(`reileta ${base}`) : new MemoryStore();
}

function socketBase(base: string): string {
  return base.replace(/^http/, "ws");
}
