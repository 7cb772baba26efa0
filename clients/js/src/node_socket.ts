/**
 * A WebSocket for Node 20, which has none by default. It offers what this package uses of the
 * browser's: text messages, `close`, and the four handlers. No compression, no binary messages.
 */

import type { ClientRequest, IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

import type { SocketLike } from "./socket.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const CLOSING_MS = 5_000;

/** The largest message that is taken. The answer to a join may be some MiB long. */
const LIMIT_BYTES = 64 * 1024 * 1024;

export class NodeSocket implements SocketLike {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readyState = 0;
  protocol = "";

  #request: ClientRequest | undefined;
  #stream: Duplex | undefined;
  #buffer: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #size = 0;
  #kind = 0;
  #closeSent = false;
  #received: { code: number; reason: string } | undefined;
  #crypto: typeof import("node:crypto") | undefined;

  constructor(url: string, protocols: string | string[] = []) {
    void this.#open(new URL(url), [protocols].flat());
  }

  get bufferedAmount(): number {
    return this.#stream?.writableLength ?? 0;
  }

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("the socket is not open");
    this.#write(TEXT, Buffer.from(text));
  }

  close(code = 1000, reason = ""): void {
    if (this.readyState >= 2) return;
    if (this.readyState === 0) {
      this.readyState = 2;
      this.#request?.destroy();
      this.#ended({ code: 1006, reason: "" });
      return;
    }
    this.readyState = 2;
    this.#sendClose(code, reason);
    setTimeout(() => this.#stream?.destroy(), CLOSING_MS).unref();
  }

  async #open(url: URL, protocols: string[]): Promise<void> {
    try {
      const secure = url.protocol === "wss:";
      const [http, crypto] = await Promise.all([
        secure ? import("node:https") : import("node:http"),
        import("node:crypto"),
      ]);
      if (this.readyState !== 0) return;
      this.#crypto = crypto;
      const key = crypto.randomBytes(16).toString("base64");
      const expected = crypto.createHash("sha1").update(key + GUID).digest("base64");
      const request = http.request({
        protocol: secure ? "https:" : "http:",
        hostname: url.hostname.replace(/^\[|\]$/g, ""),
        port: url.port,
        path: url.pathname + url.search,
        headers: {
          Connection: "Upgrade",
          Upgrade: "websocket",
          "Sec-WebSocket-Key": key,
          "Sec-WebSocket-Version": "13",
          ...(protocols.length > 0 && { "Sec-WebSocket-Protocol": protocols.join(", ") }),
        },
      });
      this.#request = request;
      request.on("upgrade", (answer: IncomingMessage, stream: Socket, head: Buffer) => {
        if (answer.headers["sec-websocket-accept"] !== expected || this.readyState !== 0) {
          stream.destroy();
          this.#fail(new Error("the answer to the upgrade is not valid"));
          return;
        }
        this.#opened(answer, stream, head);
      });
      request.on("response", (answer) => {
        answer.resume();
        this.#fail(new Error(`the upgrade was answered with status ${answer.statusCode}`));
      });
      request.on("error", (error) => this.#fail(error));
      request.end();
    } catch (error) {
      this.#fail(error);
    }
  }

  #opened(answer: IncomingMessage, stream: Socket, head: Buffer): void {
    this.#stream = stream;
    this.protocol = answer.headers["sec-websocket-protocol"] ?? "";
    this.readyState = 1;
    stream.setNoDelay(true);
    stream.setTimeout(0);
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.on("error", () => stream.destroy());
    stream.on("end", () => stream.end());
    stream.on("close", () => this.#ended(this.#received ?? { code: 1006, reason: "" }));
    this.onopen?.();
    if (head.length > 0) this.#take(head);
  }

  #take(chunk: Buffer): void {
    this.#buffer = this.#buffer.length > 0 ? Buffer.concat([this.#buffer, chunk]) : chunk;
    for (;;) {
      const frame = this.#frame();
      if (frame === undefined) return;
      this.#handle(frame.kind, frame.last, frame.payload);
      if (this.readyState === 3) return;
    }
  }

  #frame(): { kind: number; last: boolean; payload: Buffer } | undefined {
    const buffer = this.#buffer;
    if (buffer.length < 2) return undefined;
    const first = buffer.readUInt8(0);
    let length = buffer.readUInt8(1) & 0x7f;
    let start = 2;
    if (length === 126) {
      if (buffer.length < 4) return undefined;
      length = buffer.readUInt16BE(2);
      start = 4;
    } else if (length === 127) {
      if (buffer.length < 10) return undefined;
      length = Number(buffer.readBigUInt64BE(2));
      start = 10;
    }
    if (length > LIMIT_BYTES || first & 0x70 || buffer.readUInt8(1) & 0x80) {
      this.#sendClose(1002, "the frame is not valid");
      this.#stream?.destroy();
      return undefined;
    }
    if (buffer.length < start + length) return undefined;
    this.#buffer = buffer.subarray(start + length);
    const payload = buffer.subarray(start, start + length);
    return { kind: first & 0x0f, last: (first & 0x80) !== 0, payload };
  }

  #handle(kind: number, last: boolean, payload: Buffer): void {
    if (kind === PING) return this.#write(PONG, payload);
    if (kind === PONG) return;
    if (kind === CLOSE) {
      const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      this.#received = { code, reason: payload.subarray(2).toString() };
      this.#sendClose(code === 1005 ? 1000 : code, "");
      this.#stream?.end();
      return;
    }
    if (kind !== 0) this.#kind = kind;
    this.#parts.push(payload);
    this.#size += payload.length;
    if (this.#size > LIMIT_BYTES) {
      this.#sendClose(1009, "the message is too large");
      this.#stream?.destroy();
      return;
    }
    if (!last) return;
    const [only] = this.#parts;
    const whole = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#size = 0;
    if (this.#kind !== BINARY) this.onmessage?.({ data: whole.toString() });
  }

  #sendClose(code: number, reason: string): void {
    if (this.#closeSent) return;
    this.#closeSent = true;
    const text = Buffer.from(reason);
    const payload = Buffer.alloc(2 + text.length);
    payload.writeUInt16BE(code);
    text.copy(payload, 2);
    this.#write(CLOSE, payload);
  }

  #write(kind: number, payload: Buffer): void {
    const stream = this.#stream;
    if (stream === undefined || !stream.writable || this.#crypto === undefined) return;
    const length = payload.length;
    const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
    const frame = Buffer.alloc(2 + extended + 4 + length);
    frame.writeUInt8(0x80 | kind, 0);
    if (extended === 0) frame.writeUInt8(0x80 | length, 1);
    else if (extended === 2) {
      frame.writeUInt8(0x80 | 126, 1);
      frame.writeUInt16BE(length, 2);
    } else {
      frame.writeUInt8(0x80 | 127, 1);
      frame.writeBigUInt64BE(BigInt(length), 2);
    }
    const mask = this.#crypto.randomBytes(4);
    mask.copy(frame, 2 + extended);
    const start = 6 + extended;
    for (let index = 0; index < length; index++) {
      frame[start + index] = (payload[index] as number) ^ (mask[index & 3] as number);
    }
    stream.write(frame);
  }

  #fail(error: unknown): void {
    if (this.readyState === 3) return;
    this.onerror?.(error);
    this.#ended({ code: 1006, reason: error instanceof Error ? error.message : "" });
  }

  #ended(event: { code: number; reason: string }): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.(event);
  }
}
