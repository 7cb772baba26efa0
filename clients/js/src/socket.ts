/** Which WebSocket is used: the platform's, or a small one of our own in Node 20. */

import { NodeSocket } from "./node_socket.js";

/** What this package uses of a WebSocket. */
export interface SocketLike {
  onopen: ((event?: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: unknown) => void) | null;
  readonly readyState: number;
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type SocketClass = new (url: string, protocols?: string | string[]) => SocketLike;

export function platformSocket(): SocketClass {
  const found = (globalThis as { WebSocket?: unknown }).WebSocket;
  return (typeof found === "function" ? found : NodeSocket) as SocketClass;
}
