/** An instance that this session is inside, with its players and the values that they keep. */

import type { Connection } from "./connection.js";
import { Direct } from "./direct.js";
import { Emitter } from "./emitter.js";
import { Disconnected, ErrorCode, Refused } from "./errors.js";
import { LiveMap } from "./live_map.js";
import type {
  LeaveReason,
  ModerationNotice,
  ModerationType,
  Player,
  Role,
  ServerEvents,
  Welcome,
} from "./protocol.js";
import { background } from "./timing.js";

/** The newest value that a player keeps under a key. */
export interface Kept {
  readonly data: unknown;
  readonly at: number | undefined;
}

export interface RoomEvents {
  joined: Player;
  /** Another player left. */
  left: { player: Player; reason: LeaveReason };
  /** A player has another name or role. */
  updated: Player;
  /** A message without a key. `player` is undefined if the sender has left meanwhile. */
  message: { from: string; player: Player | undefined; data: unknown };
  /** A player's value: new, or gone (undefined). */
  value: { from: string; player: Player | undefined; key: string; data: unknown };
  /** What a moderator did to a user. */
  moderated: ModerationNotice;
  /** The connection is gone; the room is as it was last. */
  away: undefined;
  /** The room is up to date again. `gap`: messages without a key may be missing. */
  back: { gap: boolean; samePlayer: boolean };
  /** This player is no longer inside, and does not come back by itself. */
  ended: { reason: LeaveReason | "refused"; note: string | undefined; error: Refused | undefined };
}

export interface SetOptions {
  /** At most so many values of this key are sent in a second; the newest counts. Default: 20. */
  perSecond?: number | undefined;
}

/** How many values of other players come. */
export interface Interest {
  /** At most so many values of a key in a second: of every player, or with `near` of near ones. */
  rate?: number | undefined;
  /** The ids of near players; or a radius, in an instance with a `position_key`. */
  near?: readonly string[] | number | undefined;
  /** At most so many values of a key in a second, of players who are not near. */
  farRate?: number | undefined;
}

/** Whether an interest asks for fewer values than all. */
function limits(interest: object | undefined): boolean {
  return Object.values(interest ?? {}).some((value) => value !== undefined);
}

interface Throttled {
  value: unknown;
  waiting: boolean;
  sentAt: number;
}

/** Refusals that say nothing about the player: the next attempt may succeed. */
const PASSING: ReadonlySet<number> = new Set([
  ErrorCode.InternalError,
  ErrorCode.TooManyRequests,
  ErrorCode.Overloaded,
]);
const MESSAGE_TOO_LARGE = 1009;
const PER_SECOND = 20;
/** While so much waits in this program, values wait too: the newest one is sent later. */
const BUSY_BYTES = 256 * 1024;

export class Room extends Emitter<RoomEvents> {
  /** The instance's id. */
  readonly id: string;
  /** The own player's id. Another one if the session came back too late. */
  player = "";
  role: Role = "normal";
  /** The players inside by id, with the own one, in the order of joining. */
  readonly players = new LiveMap<string, Player>();

  readonly #connection: Connection;
  readonly #values = new Map<string, Map<string, Kept>>();
  readonly #own = new Map<string, Throttled>();
  readonly #unlisten: (() => void)[] = [];
  readonly #direct: Direct;
  #inside = true;
  #lastAt = 0;
  #interest: { rate?: unknown; near?: unknown; far_rate?: unknown } | undefined;

  /** @internal Made by `Client.join`. */
  constructor(connection: Connection, welcome: Welcome) {
    super();
    this.#connection = connection;
    this.id = welcome.instance;
    this.#direct = new Direct(
      connection,
      this.id,
      ({ player, key, at, data }) => this.#data(player, key, at, data),
      () => this.#comeBack(),
    );
    this.#take(welcome, true);
    this.#listen();
  }

  /** Whether this player is inside, or comes back as soon as there is a connection. */
  get inside(): boolean {
    return this.#inside;
  }

  /** Whether what players say comes over a connection to the instance's own node. */
  get direct(): boolean {
    return this.#direct.begun;
  }

  /** The own player, as the others see it. */
  get me(): Player | undefined {
    return this.players.get(this.player);
  }

  /** The newest value of a player under a key; undefined: there is none. */
  value(player: string, key: string): unknown {
    return this.#values.get(player)?.get(key)?.data;
  }

  /** All values of a player by key. */
  valuesOf(player: string): ReadonlyMap<string, Kept> {
    return this.#values.get(player) ?? new Map<string, Kept>();
  }

  /** Sends a message to all others inside, or to those in `to`. Resolves when the instance has
   * taken it. Messages are never dropped: use `set` for what changes often. */
  async send(data: unknown, options: { to?: readonly string[] | undefined } = {}): Promise<void> {
    this.#ensureInside();
    await this.#direct.request(data, options.to);
  }

  /** Keeps a value under a key, for all who are inside and who join later; undefined or null takes
   * it away. Of values that come faster than `perSecond`, the newest is sent. After a new
   * connection it is sent again if the server may not have it. */
  set(key: string, data: unknown, options: SetOptions = {}): void {
    this.#ensureInside();
    const gone = data === undefined || data === null;
    let own = this.#own.get(key);
    if (own === undefined) {
      if (gone) return;
      this.#own.set(key, (own = { value: undefined, waiting: false, sentAt: -Infinity }));
    }
    own.value = gone ? null : data;
    if (own.waiting) return;
    const pause = 1000 / (options.perSecond ?? PER_SECOND);
    const due = own.sentAt + pause - performance.now();
    if (due <= 0 && this.#direct.waitingBytes < BUSY_BYTES) this.#sendOwn(key, own);
    else this.#sendLater(key, own, Math.max(due, 1), pause);
  }

  /** Asks for fewer values of other players: always the newest, but not more often than it says.
   * Messages without a key are not affected. It replaces what was asked for before, and is asked
   * for again after a new connection; `{}` ends it. Meanwhile nothing comes over a direct
   * connection. */
  async interest(interest: Interest): Promise<void> {
    this.#ensureInside();
    const before = this.#interest;
    this.#interest = { rate: interest.rate, near: interest.near, far_rate: interest.farRate };
    this.#direct.want(!limits(this.#interest));
    try {
      await this.#askForInterest();
    } catch (error) {
      if (error instanceof Refused) {
        this.#interest = before;
        this.#direct.want(!limits(before));
      }
      throw error;
    }
    if (limits(this.#interest) && this.#direct.begun) {
      await this.#comeBack().catch(() => {}); // the node sends everything
    }
  }

  async #askForInterest(): Promise<void> {
    await this.#connection.request("instance-interest", this.#interest as never, {
      subgroup: this.id,
    });
  }

  /** Kicks, mutes, … a player or a user. Resolves when it is stored. */
  async moderate(
    target: { player: string } | { user: string },
    type: ModerationType,
    options: { reason?: string; until?: number } = {},
  ): Promise<void> {
    await this.#connection.request(
      "instance-moderate",
      { ...target, type, ...options },
      { subgroup: this.id },
    );
  }

  /** Leaves, and frees the seat. */
  async leave(): Promise<void> {
    if (!this.#inside) return;
    this.#finish();
    try {
      await this.#connection.request("instance-leave", { instance: this.id });
    } catch (error) {
      const left = error instanceof Refused && error.code === ErrorCode.NotInInstance;
      if (!left && !(error instanceof Disconnected)) throw error;
    }
    this.emit("ended", { reason: "left", note: undefined, error: undefined });
  }

  // The snapshot -----------------------------------------------------------------------------------

  /** Takes a whole snapshot, and tells what is different in it. */
  #take(welcome: Welcome, first = false): void {
    this.#direct.snapshot(welcome.direct === true);
    const before = new Map(this.players);
    const values = new Map(this.#values);
    this.player = welcome.player;
    this.role = welcome.role;
    const inside = new Set(welcome.players.map((one) => one.player));
    for (const [id, player] of before) {
      if (!inside.has(id)) this.#remove(player, "disconnected");
    }
    for (const player of welcome.players) {
      const known = before.get(player.player);
      this.players.ownerSet(player.player, player);
      if (first) continue;
      if (known === undefined) this.emit("joined", player);
      else if (known.displayname !== player.displayname || known.role !== player.role) {
        this.emit("updated", player);
      }
    }
    const kept = new Map<string, Map<string, Kept>>();
    for (const { player, key, at, data } of welcome.retained) {
      let own = kept.get(player);
      if (own === undefined) kept.set(player, (own = new Map()));
      own.set(key, { data, at });
    }
    this.#values.clear();
    for (const [player, own] of kept) this.#values.set(player, own);
    if (first) return;
    for (const [from, own] of kept) {
      for (const [key, { data }] of own) {
        if (JSON.stringify(values.get(from)?.get(key)?.data) !== JSON.stringify(data)) {
          this.#tellValue(from, key, data);
        }
      }
    }
    for (const [from, own] of values) {
      for (const key of own.keys()) {
        if (inside.has(from) && !kept.get(from)?.has(key)) this.#tellValue(from, key, undefined);
      }
    }
  }

  // Events -----------------------------------------------------------------------------------------

  #listen(): void {
    const connection = this.#connection;
    const on = <N extends keyof ServerEvents>(
      name: N,
      then: (data: ServerEvents[N] extends { data: infer D } ? D : never) => void,
    ) => {
      this.#unlisten.push(
        connection.on(name, ((message: { subgroup?: string; data: never }) => {
          if (message.subgroup === this.id) then(message.data);
        }) as never),
      );
    };
    on("instance-joined", (player) => {
      this.players.ownerSet(player.player, player);
      this.emit("joined", player);
    });
    on("instance-left", (left) => {
      if (left.player === this.player) return this.#thrownOut(left.reason, left.note);
      const player = this.players.get(left.player);
      if (player !== undefined) this.#remove(player, left.reason);
    });
    on("instance-data", ({ player, key, at, data }) => this.#data(player, key, at, data));
    on("player-updated", (player) => this.#update(player));
    on("instance-role", ({ user, role }) => {
      for (const player of this.players.values()) {
        if (player.user === user) this.#update({ ...player, role });
      }
    });
    on("instance-moderated", (notice) => this.emit("moderated", notice));
    on("instance-direct", ({ state }) => this.#direct.hear(state));
    on("instance-restored", (welcome) => {
      this.#take(welcome);
      this.#sendAllOwn();
      this.emit("back", { gap: true, samePlayer: true });
    });
    this.#unlisten.push(
      connection.on("connection-lost", ({ code }) => {
        if (code === MESSAGE_TOO_LARGE) this.#forgetLargest();
        this.#direct.snapshot(false);
        this.emit("away", undefined);
      }),
      connection.on("connection-closed", () => {
        if (this.#inside) this.#thrownOut("disconnected", undefined);
      }),
      connection.onOpen(() => this.#comeBack()),
    );
  }

  #data(from: string, key: string | undefined, at: number | undefined, data: unknown): void {
    if (key === undefined) {
      this.emit("message", { from, player: this.players.get(from), data });
      return;
    }
    if (data === null) this.#values.get(from)?.delete(key);
    else if (this.players.has(from)) {
      let own = this.#values.get(from);
      if (own === undefined) this.#values.set(from, (own = new Map()));
      own.set(key, { data, at });
    }
    this.#tellValue(from, key, data === null ? undefined : data);
  }

  #tellValue(from: string, key: string, data: unknown): void {
    this.emit("value", { from, player: this.players.get(from), key, data });
  }

  #update(player: Player): void {
    this.players.ownerSet(player.player, player);
    if (player.player === this.player) this.role = player.role;
    this.emit("updated", player);
  }

  #remove(player: Player, reason: LeaveReason): void {
    this.#values.delete(player.player);
    this.players.ownerDelete(player.player);
    this.emit("left", { player, reason });
  }

  #thrownOut(reason: LeaveReason | "refused", note?: string, error?: Refused): void {
    this.#finish();
    this.emit("ended", { reason, note, error });
  }

  #finish(): void {
    this.#inside = false;
    this.#direct.end();
    for (const unlisten of this.#unlisten) unlisten();
    this.#unlisten.length = 0;
  }

  async #comeBack(): Promise<void> {
    if (!this.#inside) return;
    const before = this.player;
    const wasDirect = this.#direct.begun;
    const answered = (welcome: Welcome) => {
      this.#take(welcome);
      // What was sent just before the loss may not have arrived.
      this.#sendAllOwn();
      const samePlayer = this.player === before;
      this.emit("back", { gap: welcome.gap === true || wasDirect || !samePlayer, samePlayer });
    };
    try {
      await this.#connection.request("instance-join", { instance: this.id }, { answered });
      if (this.#interest !== undefined) await this.#askForInterest();
    } catch (error) {
      if (!(error instanceof Refused) || PASSING.has(error.code)) throw error; // it connects again
      this.#thrownOut("refused", error.message, error);
    }
  }

  // Own values -------------------------------------------------------------------------------------

  #sendOwn(key: string, own: Throttled): void {
    own.sentAt = performance.now();
    const fields = { key, at: this.#nextAt() };
    const { value } = own;
    if (value === null) this.#own.delete(key);
    this.#direct.tell(value, fields);
  }

  #sendLater(key: string, own: Throttled, ms: number, pause: number): void {
    own.waiting = true;
    background(ms, () => {
      if (!this.#inside || !this.#connection.open) {
        own.waiting = false; // `#comeBack` sends it
      } else if (this.#direct.waitingBytes >= BUSY_BYTES) {
        this.#sendLater(key, own, pause, pause);
      } else {
        own.waiting = false;
        this.#sendOwn(key, own);
      }
    });
  }

  #sendAllOwn(): void {
    for (const [key, own] of this.#own) if (!own.waiting) this.#sendOwn(key, own);
  }

  /** The server takes no message of that size: sent again, it would close the next socket, too. */
  #forgetLargest(): void {
    const sizes = [...this.#own].map(([key, { value }]) => [JSON.stringify(value).length, key] as const);
    const [, key] = sizes.sort(([one], [other]) => other - one)[0] ?? [];
    if (key !== undefined) this.#own.delete(key);
  }

  /** Seconds that only grow, also over a reload of the page. */
  #nextAt(): number {
    this.#lastAt = Math.max(this.#lastAt + 0.000_001, Date.now() / 1000);
    return this.#lastAt;
  }

  #ensureInside(): void {
    if (!this.#inside) throw new Disconnected(`not inside ${this.id} any more`);
  }
}

