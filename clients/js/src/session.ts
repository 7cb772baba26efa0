/**
 * The socket of the session API: the state that all sockets of the session share, and resources,
 * which one session at a time may write. It connects again by itself, and sends what was not
 * acknowledged again.
 */

import type { CredentialKeeper } from "./credentials.js";
import { Disconnected, type ErrorObject, ProtocolError, Refused, TimedOut } from "./errors.js";
import type { Http } from "./http.js";
import { type Closed, type ConnectionOptions, KeptSocket, type Lost } from "./kept_socket.js";
import { isObject, type Json, type JsonObject, merged } from "./merge_patch.js";
import {
  CloseCode,
  type ResourceMetadata,
  type ResourceQueue,
  type ResourceUpdated,
  type SessionNotice,
} from "./protocol.js";
import { background } from "./timing.js";

export interface SessionEvents {
  /** The state changed, here or elsewhere. */
  state: JsonObject;
  /** The resource that the session holds, or null. */
  resource: ResourceMetadata | null;
  /** The session's place in the waiting line of a resource changed. */
  queue: ResourceQueue;
  /** An admin tells everyone something. */
  "server-notice": SessionNotice;
  open: { again: boolean };
  lost: Lost;
  closed: Closed;
}

/** A resource as it is now, kept in step with the server. */
export interface Watched {
  readonly type: string;
  readonly id: number;
  /** The newest description, with `holder` and `access`. */
  readonly current: ResourceUpdated;
  /** The whole content, for those who may acquire it. */
  readonly view: Json | undefined;
  stop(): Promise<void>;
}

interface Payload {
  kind: string;
  [field: string]: unknown;
}

interface Sent {
  id: string;
  payload: Payload;
  patch: JsonObject | undefined;
  resolve(): void;
  reject(error: unknown): void;
  cancel(): void;
}

interface Watch {
  type: string;
  id: number;
  current: ResourceUpdated | undefined;
  view: Json | undefined;
  listeners: Set<(watched: Watched) => void>;
  ended(error: Error): void;
}

const TIMEOUT_MS = 30_000;

export class SessionSocket extends KeptSocket<SessionEvents> {
  /** The resource that the session holds. */
  held: ResourceMetadata | null = null;

  readonly #url: string;
  readonly #http: Http;
  readonly #timeoutMs: number;
  readonly #watches = new Map<string, Watch>();
  /** As the server has it, as far as it has told. */
  #confirmed: JsonObject = {};
  #sent: Sent[] = [];

  /** @internal Made by `Client.session`. */
  constructor(url: string, http: Http, keeper: CredentialKeeper, options: ConnectionOptions = {}) {
    super(keeper, options);
    this.#url = url;
    this.#http = http;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.start();
  }

  /** The state, with the own changes that are not acknowledged yet. */
  get state(): JsonObject {
    let state: Json = this.#confirmed;
    for (const { patch } of this.#sent) if (patch !== undefined) state = merged(state, patch);
    return isObject(state) ? state : {};
  }

  /** Changes the state by a merge patch: null removes a member. Resolves when it is stored. After a
   * lost connection it is sent again. */
  async patch(patch: JsonObject): Promise<void> {
    const done = this.#send({ kind: "state", patch }, patch);
    this.emit("state", this.state);
    await done;
  }

  // Resources --------------------------------------------------------------------------------------

  /** Acquires a resource; with `wait`, stands in line until it is offered. */
  async acquire(
    type: string,
    number: number,
    options: { wait?: boolean; onQueue?: (queue: ResourceQueue) => void; signal?: AbortSignal } = {},
  ): Promise<void> {
    const path = { type, number };
    const { signal } = options;
    for (;;) {
      try {
        await this.#http.whole("post", "/resource/{type}/{number}/acquire", { path, signal });
        return;
      } catch (error) {
        const taken = error instanceof Refused && error.code === ACQUIRED_ELSEWHERE;
        if (!taken || !options.wait) throw error;
      }
      await this.#waitInLine(type, number, options);
    }
  }

  async release(type: string, number: number): Promise<void> {
    await this.#http.whole("post", "/resource/{type}/{number}/release", { path: { type, number } });
  }

  /** Writes by a merge patch, if the session holds the resource. */
  async write(
    type: string,
    number: number,
    change: { title?: string; data?: JsonObject },
    options: { version?: number } = {},
  ): Promise<void> {
    const { version } = options;
    const headers = version === undefined ? {} : { "If-Match": `"${version}"` };
    await this.#http.whole("patch", "/resource/{type}/{number}", {
      path: { type, number },
      body: change as never,
      headers,
    });
  }

  /** Watches a resource: `changed` gets it at once, and at each change. */
  async watch(type: string, id: number, changed: (watched: Watched) => void): Promise<Watched> {
    await this.ready();
    const key = `${type}/${id}`;
    let watch = this.#watches.get(key);
    const fresh = watch === undefined;
    if (watch === undefined) {
      watch = { type, id, current: undefined, view: undefined, listeners: new Set(), ended() {} };
      this.#watches.set(key, watch);
    }
    const own = watch;
    const first = new Promise<Watched>((resolve, reject) => {
      if (own.current !== undefined) return resolve(this.#watched(own, changed));
      const begun = () => {
        own.listeners.delete(begun);
        resolve(this.#watched(own, changed));
      };
      own.listeners.add(begun);
      const { ended } = own;
      own.ended = (error) => {
        ended(error);
        reject(error);
      };
    });
    own.listeners.add(changed);
    if (fresh) {
      try {
        await this.#send({ kind: "watch", type, id });
      } catch (error) {
        this.#watches.delete(key);
        first.catch(() => {});
        throw error;
      }
    }
    return first;
  }

  #watched(watch: Watch, listener: (watched: Watched) => void): Watched {
    const { type, id } = watch;
    return {
      type,
      id,
      get current() {
        return watch.current as ResourceUpdated;
      },
      get view() {
        return watch.view;
      },
      stop: async () => {
        watch.listeners.delete(listener);
        if (watch.listeners.size > 0 || !this.#watches.delete(`${type}/${id}`)) return;
        if (this.open) await this.#send({ kind: "unwatch", type, id });
      },
    };
  }

  async #waitInLine(
    type: string,
    number: number,
    { onQueue, signal }: { onQueue?: (queue: ResourceQueue) => void; signal?: AbortSignal },
  ): Promise<void> {
    await this.ready();
    const path = { type, number };
    const unlisten: (() => void)[] = [];
    try {
      await new Promise<void>((resolve, reject) => {
        const aborted = () => reject(signal?.reason);
        signal?.addEventListener("abort", aborted, { once: true });
        unlisten.push(() => signal?.removeEventListener("abort", aborted));
        const ask = () =>
          this.#http.whole("post", "/resource/{type}/{number}/queue", { path }).then(({ queue }) => {
            if (queue?.offered_until) resolve();
          });
        unlisten.push(
          this.on("queue", (queue) => {
            if (queue.type !== type || queue.id !== number) return;
            onQueue?.(queue);
            if (queue.offered_until || queue.reason === "expired" || queue.reason === "failed") {
              resolve(); // asks for it, and stands in line again if it is too late
            } else if (queue.reason && queue.reason !== "acquired") {
              reject(new Error(`no longer in line: ${queue.reason}`));
            }
          }),
          this.on("open", () => void ask().catch(reject)),
          this.on("closed", ({ reason }) => reject(new Disconnected(reason))),
        );
        ask().catch(reject);
      });
    } catch (error) {
      if (signal?.aborted) {
        const leave = this.#http.whole("delete", "/resource/{type}/{number}/queue", { path });
        await leave.catch(() => {});
      }
      throw error;
    } finally {
      for (const stop of unlisten) stop();
    }
  }

  // Connecting -------------------------------------------------------------------------------------

  protected override address(token: string): [string, string] {
    // A page can't set headers of the upgrade.
    return [`${this.#url}?authuser=${token}`, "reileta.session"];
  }

  protected override dropped(code: number, reason: string): void {
    if (code === CloseCode.replaced) return this.end(code, reason);
    if (NOT_TAKEN.has(code)) {
      // One of the messages was wrong; sent again, it would close the next socket, too.
      this.#rejectAll(new ProtocolError(reason || `the server closed the socket with ${code}`));
    }
  }

  protected override isDoubtful(code: number, opened: boolean): boolean {
    // An upgrade that is refused has no reason that a page may read.
    return super.isDoubtful(code, opened) || !opened;
  }

  protected override async checkCredential(): Promise<void> {
    try {
      await this.#http.whole("get", "/session", {});
    } catch (error) {
      if (error instanceof Refused && error.status === 401) await this.keeper.refresh();
    }
  }

  protected override tellLost(lost: Lost): void {
    this.emit("lost", lost);
  }

  protected override over(closed: Closed, error: Error): void {
    this.#rejectAll(error);
    for (const watch of this.#watches.values()) watch.ended(error);
    this.#watches.clear();
    this.emit("closed", closed);
  }

  #rejectAll(error: Error): void {
    for (const one of this.#sent.splice(0)) {
      one.cancel();
      one.reject(error);
    }
  }

  // Messages ---------------------------------------------------------------------------------------

  #send(payload: Payload, patch?: JsonObject): Promise<void> {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      const id = crypto.randomUUID();
      const cancel = background(this.#timeoutMs, () => {
        const index = this.#sent.indexOf(sent);
        if (index >= 0) this.#sent.splice(index, 1);
        reject(new TimedOut(payload.kind, this.#timeoutMs));
      });
      const sent: Sent = { id, payload, patch, resolve, reject, cancel };
      this.#sent.push(sent);
      if (this.open) this.#writeSent(sent);
    });
  }

  #writeSent({ id, payload }: Sent): void {
    const sent_at = new Date().toISOString();
    this.sendMessage({ type: "event", id, sent_at, status: "ok", reason: null, payload });
  }

  protected override received(text: string): void {
    const message = JSON.parse(text) as { type: string; id: string; payload?: Payload };
    if (message.type === "ack") return this.#acknowledged(message.id.toLowerCase());
    const { payload } = message;
    if (payload === undefined) return;
    if (payload.kind !== "closing") {
      this.sendMessage({ type: "ack", id: message.id, sent_at: new Date().toISOString() });
    }
    switch (payload.kind) {
      case "hello":
        return this.#hello(payload);
      case "state":
        this.#confirmed = merged(this.#confirmed, payload["patch"] as JsonObject) as JsonObject;
        return this.emit("state", this.state);
      case "resource":
        this.held = payload["resource"] as ResourceMetadata | null;
        return this.emit("resource", this.held);
      case "refused":
        return this.#refused(payload["event"] as string, payload["error"] as ErrorObject);
      case "resource-updated":
        return this.#updated(payload as unknown as ResourceUpdated);
      case "resource-unwatched":
        return this.#unwatched(payload as unknown as { type: string; id: number; reason: string });
      case "resource-queue":
        return this.emit("queue", payload as unknown as ResourceQueue);
      case "server-notice":
        return this.emit("server-notice", payload as unknown as SessionNotice);
    }
  }

  #hello(payload: Payload): void {
    const session = payload["session"] as {
      state: JsonObject;
      resource: ResourceMetadata | null;
    };
    this.#confirmed = session.state;
    this.held = session.resource;
    const again = this.becomeReady();
    // What was not acknowledged may or may not be in this state: it is sent again, with new ids.
    for (const sent of this.#sent) {
      sent.id = crypto.randomUUID();
      this.#writeSent(sent);
    }
    for (const watch of this.#watches.values()) {
      const { type, id } = watch;
      const waits = this.#sent.some(
        ({ payload: one }) => one.kind === "watch" && one["type"] === type && one["id"] === id,
      );
      if (!waits) this.#send({ kind: "watch", type, id }).catch((error: Error) => this.#drop(watch, error));
    }
    this.emit("open", { again });
    this.emit("state", this.state);
    this.emit("resource", this.held);
  }

  #acknowledged(id: string): void {
    const sent = this.#taken(id);
    if (sent === undefined) return;
    if (sent.patch !== undefined) {
      this.#confirmed = merged(this.#confirmed, sent.patch) as JsonObject;
    }
    sent.resolve();
  }

  #refused(id: string, error: ErrorObject): void {
    const sent = this.#taken(id.toLowerCase());
    sent?.reject(new Refused(error));
    if (sent?.patch !== undefined) this.emit("state", this.state);
  }

  #taken(id: string): Sent | undefined {
    const index = this.#sent.findIndex((one) => one.id === id);
    if (index < 0) return undefined;
    const [sent] = this.#sent.splice(index, 1);
    sent?.cancel();
    return sent;
  }

  #updated(update: ResourceUpdated): void {
    const watch = this.#watches.get(`${update.type}/${update.id}`);
    if (watch === undefined) return;
    const { view, patch, from } = update as { view?: Json; patch?: Json; from?: number };
    if (view !== undefined) watch.view = view;
    else if (patch !== undefined && isObject(watch.view) && watch.view["version"] === from) {
      watch.view = merged(watch.view, patch);
    } else if (patch !== undefined) {
      // The copy is not the one that the patch belongs to: the answer has the whole view.
      void this.#send({ kind: "watch", type: watch.type, id: watch.id }).catch(() => {});
      return;
    }
    watch.current = update;
    for (const listener of [...watch.listeners]) listener(this.#watched(watch, listener));
  }

  #unwatched({ type, id, reason }: { type: string; id: number; reason: string }): void {
    const watch = this.#watches.get(`${type}/${id}`);
    if (watch !== undefined) this.#drop(watch, new Error(`no longer watched: ${reason}`));
  }

  #drop(watch: Watch, error: Error): void {
    this.#watches.delete(`${watch.type}/${watch.id}`);
    watch.ended(error);
  }
}

const ACQUIRED_ELSEWHERE = 113;
/** Close codes that say that a message of the client is not one. */
const NOT_TAKEN: ReadonlySet<number> = new Set([1007, 1009, 4001, 4002, 4003, 4004, 4005]);
