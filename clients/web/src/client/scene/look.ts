/** What the master decides about a room: its light, and where the fire burns. */
import { REACH_M } from "./pose.js";

export const LIGHTS = { day: "Day", dusk: "Dusk", night: "Night" } as const;
export type Light = keyof typeof LIGHTS;

export interface Look {
  readonly light: Light;
  readonly fire: readonly [number, number];
}

export const FIRST_LOOK: Look = { light: "day", fire: [0, 0] };

/** A look out of what the master's client sent; undefined if it is none. */
export function readLook(data: unknown): Look | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const { light, fire } = data as Record<string, unknown>;
  if (typeof light !== "string" || !Object.hasOwn(LIGHTS, light) || !Array.isArray(fire)) return undefined;
  const [x, z] = fire as unknown[];
  if (typeof x !== "number" || typeof z !== "number") return undefined;
  if (!(Math.abs(x) <= REACH_M && Math.abs(z) <= REACH_M)) return undefined;
  return { light: light as Light, fire: [x, z] };
}

export const PALETTES: Record<Light, Palette> = {
  day: { top: 0x4f8fd6, horizon: 0xd9ecf7, ground: 0x7fae6e, tree: 0x3f7d52, sun: 2.4, sky: 1.5, sunColor: 0xfff3da },
  dusk: { top: 0x3b3f7d, horizon: 0xf2b48a, ground: 0x7d9a6a, tree: 0x3a6b55, sun: 1.6, sky: 1.5, sunColor: 0xffd0a6 },
  night: { top: 0x0b1030, horizon: 0x39447a, ground: 0x4a7560, tree: 0x35605a, sun: 0.9, sky: 1.5, sunColor: 0xc3d0ff },
};

export interface Palette {
  readonly top: number;
  readonly horizon: number;
  readonly ground: number;
  readonly tree: number;
  readonly sun: number;
  readonly sky: number;
  readonly sunColor: number;
}

/** A hue of its own for each text, 0 to 1. */
export function hueOf(text: string): number {
  let hash = 2166136261;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 16777619);
  }
  return ((hash >>> 0) % 360) / 360;
}
