/** Where a player stands and looks: the value of the key `pose`, and how it is smoothed. */

/** Metres and radians. `yaw` 0 looks along -z, and grows to the left. Hands are relative to the feet,
 * in the room's directions; without a headset there are none. */
export interface Pose {
  readonly x: number;
  readonly y: number;
  readonly z: number;
  readonly yaw: number;
  readonly pitch: number;
  /** The height of the head above the feet. */
  readonly head: number;
  readonly left: Point | undefined;
  readonly right: Point | undefined;
}

export type Point = readonly [number, number, number];

export const HEAD_M = 1.6;
/** Nobody walks, and nothing is drawn, farther out. */
export const REACH_M = 30;

/** A pose out of what another client sent; undefined if it is none. Any client may send anything. */
export function readPose(data: unknown): Pose | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const value = data as Record<string, unknown>;
  const x = number(value["x"], REACH_M);
  const z = number(value["z"], REACH_M);
  if (x === undefined || z === undefined) return undefined;
  return {
    x,
    z,
    y: number(value["y"], REACH_M) ?? 0,
    yaw: number(value["yaw"], 1e4) ?? 0,
    pitch: number(value["pitch"], Math.PI / 2) ?? 0,
    head: Math.max(0.3, number(value["head"], 3) ?? HEAD_M),
    left: point(value["left"]),
    right: point(value["right"]),
  };
}

/** The pose as it is sent: rounded to millimetres, so that it is small. */
export function writePose(pose: Pose): Record<string, unknown> {
  const { left, right } = pose;
  return {
    x: rounded(pose.x),
    y: rounded(pose.y),
    z: rounded(pose.z),
    yaw: rounded(pose.yaw),
    pitch: rounded(pose.pitch),
    head: rounded(pose.head),
    ...(left && { left: left.map(rounded) }),
    ...(right && { right: right.map(rounded) }),
  };
}

/** The poses of one player as they came, and the pose between them at a moment. */
export class Track {
  readonly #poses: { at: number; pose: Pose }[] = [];

  /** `now` is this page's clock, in ms. */
  add(pose: Pose, now: number): void {
    const last = this.#poses.at(-1);
    // After a pause, the player moves from where it stood, not slowly over the whole pause.
    if (last && now - last.at > 2 * DELAY_MS) this.#poses.push({ at: now - DELAY_MS / 2, pose: last.pose });
    this.#poses.push({ at: now, pose });
    while (this.#poses.length > LIMIT) this.#poses.shift();
  }

  /** The pose a moment ago, so that the next one is known as a rule; undefined before the first. */
  at(now: number): Pose | undefined {
    const then = now - DELAY_MS;
    while (this.#poses.length > 1 && (this.#poses[1]?.at ?? Infinity) <= then) this.#poses.shift();
    const [from, to] = this.#poses;
    if (from === undefined || to === undefined || then <= from.at) return from?.pose;
    return between(from.pose, to.pose, (then - from.at) / (to.at - from.at));
  }

  /** Whether the pose still changes. */
  moving(now: number): boolean {
    return this.#poses.length > 1 || (this.#poses[0]?.at ?? 0) > now - DELAY_MS;
  }
}

/** Two poses at 20 a second, and a little more for the network. */
const DELAY_MS = 120;
const LIMIT = 12;
/** Farther in one step is not walked: the player appears there. */
const JUMP_M = 4;

function between(from: Pose, to: Pose, part: number): Pose {
  if (Math.hypot(to.x - from.x, to.z - from.z) > JUMP_M) return part < 1 ? from : to;
  const mix = (a: number, b: number) => a + (b - a) * part;
  const mixed = (a: Point | undefined, b: Point | undefined): Point | undefined =>
    a && b ? [mix(a[0], b[0]), mix(a[1], b[1]), mix(a[2], b[2])] : b;
  return {
    x: mix(from.x, to.x),
    y: mix(from.y, to.y),
    z: mix(from.z, to.z),
    yaw: from.yaw + turn(to.yaw - from.yaw) * part,
    pitch: mix(from.pitch, to.pitch),
    head: mix(from.head, to.head),
    left: mixed(from.left, to.left),
    right: mixed(from.right, to.right),
  };
}

/** The shortest way round. */
export function turn(angle: number): number {
  return Math.atan2(Math.sin(angle), Math.cos(angle));
}

function number(value: unknown, limit: number): number | undefined {
  if (typeof value !== "number" || !Number.isFinite(value)) return undefined;
  return Math.max(-limit, Math.min(limit, value));
}

function point(value: unknown): Point | undefined {
  if (!Array.isArray(value)) return undefined;
  const [x, y, z] = [number(value[0], 3), number(value[1], 3), number(value[2], 3)];
  return x === undefined || y === undefined || z === undefined ? undefined : [x, y, z];
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
