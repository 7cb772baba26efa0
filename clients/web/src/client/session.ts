/** Who is logged in, and whether the server is reached. */
import { signal } from "@preact/signals";
import { Client, type Connection, type ServerEvents, type UserMe } from "reileta-client";

import { SERVER } from "../shared/base.js";

export const client = new Client(SERVER);

export const me = signal<UserMe | undefined>(undefined);
/** `none`: not logged in. `away`: the connection was lost, and comes back by itself. */
export const link = signal<"none" | "connecting" | "open" | "away">(client.loggedIn ? "connecting" : "none");
/** Why the user was logged out, in words. */
export const ended = signal<string | undefined>(undefined);
/** What an admin tells everybody. */
export const announced = signal<ServerEvents["server-notice"]["data"] | undefined>(undefined);

let listening: Connection | undefined;
let untilOver: ReturnType<typeof setTimeout> | undefined;

function announce(notice: ServerEvents["server-notice"]["data"] | undefined): void {
  clearTimeout(untilOver);
  announced.value = notice?.text ? notice : undefined;
  if (notice?.until) untilOver = setTimeout(() => (announced.value = undefined), notice.until - Date.now());
}

/** Opens the connection of the user who is logged in. */
export function connect(): Connection {
  const { connection } = client;
  if (connection === listening) return connection;
  listening = connection;
  link.value = "connecting";
  connection.on("connection-open", () => {
    link.value = "open";
    me.value = connection.user;
    announce(undefined); // the server tells each new connection
  });
  connection.on("server-notice", ({ data }) => announce(data));
  connection.on("update-user", () => (me.value = connection.user));
  connection.on("connection-lost", () => (link.value = "away"));
  connection.on("connection-closed", ({ code, reason }) => {
    if (connection !== listening) return;
    listening = undefined;
    link.value = "none";
    me.value = undefined;
    if (code === 4000) ended.value = "You are no longer logged in. Log in again.";
    else if (code !== 1000) ended.value = `The connection ended: ${reason}`;
  });
  return connection;
}

export async function logout(): Promise<void> {
  const before = listening;
  listening = undefined;
  await client.logout().catch(() => client.credentials.set(undefined));
  before?.close();
  link.value = "none";
  me.value = undefined;
  ended.value = undefined;
  announce(undefined);
}

if (client.loggedIn) connect();
