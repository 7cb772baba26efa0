/** The messages of `/api/ws`, as the server describes them. */

import type { components } from "./generated/asyncapi.js";

export type Schemas = components["schemas"];

/** Messages by the name in `command`, out of those whose schema's name ends with `Kind`. */
type Named<Kind extends string> = {
  [K in keyof Schemas as K extends `${string}${Kind}`
    ? Schemas[K] extends { command: infer Name extends string }
      ? Name
      : never
    : never]: Schemas[K];
};

/** Events by name. `data` is what happened, `subgroup` the object that it is about. */
export type ServerEvents = Named<"Event">;
export type EventName = keyof ServerEvents;

type Commands = Named<"Command">;
type Answers = Named<"Answer">;
export type CommandName = keyof Commands & keyof Answers;
export type CommandData<N extends CommandName> = Commands[N] extends { data?: infer D }
  ? Exclude<D, undefined>
  : never;
export type AnswerData<N extends CommandName> = Answers[N] extends { data: infer D } ? D : never;

export type Player = Schemas["Player"];
export type Role = Schemas["Role"];
export type Welcome = Schemas["Welcome"];
export type UserMe = Schemas["UserMe"];
export type Instance = Schemas["Instance"];
export type World = Schemas["World"];
export type QueueEntry = Schemas["QueueEntry"];
export type ModerationType = Schemas["ModerationType"];
export type ModerationNotice = Schemas["ModerationNotice"];
export type LeaveReason = Schemas["LeaveReason"];
export type ResourceUpdated = Schemas["ResourceUpdated"];
export type ResourceQueue = Schemas["ResourceQueue"];
export type ResourceMetadata = Schemas["ResourceMetadata"];
export type SessionNotice = Schemas["ServerNoticePayload"];

/** Close codes that a client must tell apart. */
export const CloseCode = {
  goingAway: 1001,
  tryAgainLater: 1013,
  tooMuch: 1008,
  credentialGone: 4000,
  credentialMissing: 4001,
  replaced: 4009,
} as const;

/** How long the server asks to wait before the next connection, in ms; undefined: it does not. */
export function comeBackInMs(reason: string): number | undefined {
  const found = /come back in (\d+(?:\.\d+)?) s/.exec(reason);
  return found ? Number(found[1]) * 1000 : undefined;
}
