/** A room as the page shows it: players, talk, the master's look, and what was said about oneself. */
import { computed, signal } from "@preact/signals";
import { ErrorCode, type ModerationType, type Player, Refused, type Role, type Room } from "reileta-client";

import { words } from "../shared/words.js";
import { type Instance, type World, worldOf } from "./live_lists.js";
import { FIRST_LOOK, type Light, type Look, readLook } from "./scene/look.js";
import { type Pose, readPose, writePose } from "./scene/pose.js";
import type { Stage } from "./scene/stage.js";
import { client } from "./session.js";

export interface Line {
  readonly number: number;
  /** undefined: the room itself says it. */
  readonly from: string | undefined;
  readonly own: boolean;
  readonly text: string;
}

const POSE = "pose";
const TYPING = "typing";
const LOOK = "look";
const LINES = 200;
const TEXT_LIMIT = 500;
const TYPING_MS = 4_000;
const RANKS: readonly Role[] = ["owner", "admin", "master", "moderator", "normal"];

export class RoomModel {
  readonly players = signal<readonly Player[]>([]);
  readonly lines = signal<readonly Line[]>([]);
  readonly typing = signal<ReadonlySet<string>>(new Set());
  readonly instance = signal<Instance>(undefined as never);
  readonly role = signal<Role>("normal");
  readonly away = signal(false);
  /** What was done to oneself, in words. */
  readonly notice = signal<string | undefined>(undefined);
  /** Users who are muted, as far as it is known. */
  readonly muted = signal<ReadonlySet<string>>(new Set());
  readonly look = signal<Look>(FIRST_LOOK);
  readonly isMaster = computed(() => this.instance.value.master === this.room.me?.user && this.players.value.length > 0);

  readonly #stops: (() => void)[] = [];
  #stage: Stage | undefined;
  #number = 0;
  #quiet: ReturnType<typeof setTimeout> | undefined;
  #pose: Pose | undefined;

  constructor(
    readonly room: Room,
    instance: Instance,
    readonly world: World | undefined,
  ) {
    this.instance.value = instance;
    this.#refresh();
    this.#listen();
    this.#followMaster();
    this.#follow();
    if (this.mayModerate()) void this.#learnMutes();
  }

  get title(): string {
    return this.instance.value.title ?? this.world?.title ?? this.instance.value.name;
  }

  get worldId(): string {
    return worldOf(this.instance.value);
  }

  get selfMuted(): boolean {
    const me = this.room.me;
    return me !== undefined && this.muted.value.has(me.user);
  }

  /** Shows all of the room on a stage, now and as it changes. */
  show(stage: Stage): void {
    this.#stage = stage;
    const now = performance.now();
    for (const { player, displayname } of this.room.players.values()) {
      if (player === this.room.player) continue;
      stage.avatars.add(player, displayname);
      this.#place(player, this.room.value(player, POSE), now);
    }
    stage.refresh();
  }

  hide(): void {
    this.#stage = undefined;
  }

  /** Tells the others where this player is. Only the newest pose counts. */
  moved(pose: Pose): void {
    this.#pose = pose;
    if (this.room.inside && !this.selfMuted) this.room.set(POSE, writePose(pose));
  }

  async say(text: string): Promise<void> {
    const said = text.trim().slice(0, TEXT_LIMIT);
    if (!said) return;
    this.stopTyping();
    try {
      await this.room.send({ say: said });
    } catch (error) {
      if (error instanceof Refused && error.code === ErrorCode.NotAllowed) {
        throw new Error("You are muted: the others can't read this.");
      }
      throw new Error(words(error));
    }
    this.#add(this.room.me?.displayname ?? "You", said, true);
  }

  nowTyping(): void {
    if (!this.room.inside || this.selfMuted) return;
    if (this.#quiet === undefined) this.room.set(TYPING, true);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.stopTyping(), TYPING_MS);
  }

  stopTyping(): void {
    if (this.#quiet === undefined) return;
    clearTimeout(this.#quiet);
    this.#quiet = undefined;
    if (this.room.inside) this.room.set(TYPING, null);
  }

  /** Whether this player may moderate that one; without one, whether it may moderate at all. */
  mayModerate(other?: Player): boolean {
    const own = RANKS.indexOf(this.role.value);
    if (other === undefined) return own < RANKS.length - 1;
    return other.player !== this.room.player && own < RANKS.indexOf(other.role);
  }

  moderate(player: Player, type: ModerationType, reason: string): Promise<void> {
    const options = reason.trim() ? { reason: reason.trim() } : {};
    return this.room.moderate(type === "kick" ? { player: player.player } : { user: player.user }, type, options);
  }

  /** The master changes the light, or moves the fire to where the master stands. */
  setLight(light: Light): void {
    this.#setLook({ ...this.look.value, light });
  }

  moveFire(): void {
    const pose = this.#pose;
    if (!pose) return;
    const ahead = 1.6;
    const place = [pose.x - Math.sin(pose.yaw) * ahead, pose.z - Math.cos(pose.yaw) * ahead] as const;
    this.#setLook({ ...this.look.value, fire: [Math.round(place[0] * 100) / 100, Math.round(place[1] * 100) / 100] });
  }

  dispose(): void {
    for (const stop of this.#stops) stop();
    clearTimeout(this.#quiet);
    const { connection } = openConnection();
    if (connection?.open) connection.unsubscribe("update-instance", this.room.id).catch(() => {});
  }

  // Events -----------------------------------------------------------------------------------------

  #listen(): void {
    const { room } = this;
    this.#stops.push(
      room.on("joined", (player) => {
        this.#stage?.avatars.add(player.player, player.displayname);
        this.#place(player.player, room.value(player.player, POSE), performance.now());
        if (player.player !== room.player) this.#add(undefined, `${player.displayname} came in`);
        this.#refresh();
      }),
      room.on("left", ({ player }) => {
        this.#stage?.avatars.remove(player.player);
        this.#stage?.refresh();
        this.#setTyping(player.player, false);
        this.#add(undefined, `${player.displayname} left`);
        this.#refresh();
      }),
      room.on("updated", (player) => {
        this.#stage?.avatars.rename(player.player, player.displayname);
        this.#refresh();
        if (player.player === room.player && this.mayModerate()) void this.#learnMutes();
      }),
      room.on("value", ({ from, key, data }) => this.#value(from, key, data)),
      room.on("message", ({ from, player, data }) => {
        const text = (data as { say?: unknown } | null)?.say;
        if (typeof text !== "string" || !text.trim()) return;
        const said = text.slice(0, TEXT_LIMIT);
        this.#setTyping(from, false);
        this.#stage?.avatars.say(from, said, performance.now());
        this.#stage?.refresh();
        this.#add(player?.displayname ?? "Someone who left", said);
      }),
      room.on("moderated", (notice) => this.#moderated(notice)),
      room.on("away", () => (this.away.value = true)),
      room.on("back", ({ gap }) => {
        this.away.value = false;
        this.#forgetOwnAvatar();
        this.#refresh();
        this.#add(undefined, gap ? "You are back. Some messages may be missing." : "You are back.");
        this.#followMaster();
        if (this.#pose) this.moved(this.#pose);
      }),
    );
  }

  #value(from: string, key: string, data: unknown): void {
    if (key === POSE) {
      const pose = readPose(data);
      if (pose) this.#stage?.avatars.move(from, pose, performance.now());
    } else if (key === TYPING) this.#setTyping(from, data === true);
    else if (key === LOOK) this.#follow();
  }

  #moderated({ type, user, reason, by }: Parameters<Parameters<Room["on"]>[1]>[0] & ModerationLike): void {
    if (!user) return;
    if (type === "mute" || type === "unmute") {
      const muted = new Set(this.muted.value);
      if (type === "mute") muted.add(user);
      else muted.delete(user);
      this.muted.value = muted;
    }
    if (user !== this.room.me?.user) return;
    const because = reason ? `: “${reason}”` : ".";
    if (type === "mute") this.notice.value = `A moderator muted you${because}`;
    else if (type === "warn") this.notice.value = `A moderator warns you${because}`;
    else if (type === "unmute") {
      this.notice.value = by ? "A moderator lets you speak again." : "You may speak again.";
      if (this.#pose) this.moved(this.#pose);
    }
  }

  #place(player: string, data: unknown, now: number): void {
    const pose = readPose(data);
    if (pose && player !== this.room.player) this.#stage?.avatars.move(player, pose, now);
  }

  /** After a long loss, the own player has another id. */
  #forgetOwnAvatar(): void {
    this.#stage?.avatars.remove(this.room.player);
    this.#stage?.refresh();
  }

  #setTyping(player: string, on: boolean): void {
    if (this.typing.value.has(player) === on) return;
    const typing = new Set(this.typing.value);
    if (on) typing.add(player);
    else typing.delete(player);
    this.typing.value = typing;
    this.#stage?.avatars.typing(player, on);
    this.#stage?.refresh();
  }

  #add(from: string | undefined, text: string, own = false): void {
    const line = { number: ++this.#number, from, own, text };
    this.lines.value = [...this.lines.value.slice(1 - LINES), line];
  }

  #refresh(): void {
    this.players.value = [...this.room.players.values()];
    this.role.value = this.room.role;
  }

  // The master -------------------------------------------------------------------------------------

  #followMaster(): void {
    const { id } = this.room;
    const connection = client.connection;
    if (this.#watching !== connection) {
      this.#watching = connection;
      this.#stops.push(
        connection.on("update-instance", ({ subgroup, data }) => {
          if (subgroup !== id) return;
          this.#told++;
          this.instance.value = data as Instance;
          this.#follow();
        }),
      );
      connection.subscribe("update-instance", id).catch(() => {}); // inside, some come anyway
    }
    const told = this.#told;
    client.http
      .get("/api/instances/{ref}", { path: { ref: id } })
      .then((instance) => {
        if (this.#told !== told) return; // what came meanwhile is newer
        this.instance.value = instance as Instance;
        this.#follow();
      })
      .catch(() => {}); // the next event tells
  }

  #watching: unknown;
  /** How many events have told of the instance. */
  #told = 0;

  /** Takes the look that the master has set. A new master keeps the look that the room has, so that
   * it outlives the one who set it. */
  #follow(): void {
    const { master } = this.instance.value;
    for (const { player, user } of this.room.players.values()) {
      if (user !== master) continue;
      const look = readLook(this.room.value(player, LOOK));
      if (look && player !== this.room.player) return this.#showLook(look);
    }
    if (this.isMaster.value && !this.#own && this.look.value !== FIRST_LOOK) this.#setLook(this.look.value);
  }

  #own = false;

  #setLook(look: Look): void {
    this.#showLook(look);
    this.#own = true;
    if (this.room.inside) this.room.set(LOOK, look);
  }

  #showLook(look: Look): void {
    this.look.value = look;
    this.#stage?.show(look);
  }

  async #learnMutes(): Promise<void> {
    try {
      const { items } = await client.http.get("/api/instances/{ref}/mutes", { path: { ref: this.room.id } });
      this.muted.value = new Set([...this.muted.value, ...items.map((one) => one.user)]);
    } catch {
      // the list of muted users is a help, and no more
    }
  }
}

interface ModerationLike {
  readonly type: string;
  readonly user?: string | null;
  readonly reason?: string | null;
  readonly by?: string | null;
}

function openConnection() {
  return { connection: client.loggedIn ? client.connection : undefined };
}
