/** What can go wrong: the server refuses a request, or there is no connection. */

import { ErrorCode } from "./generated/errors.js";

export { ErrorCode };

/** A field that the server did not accept, with a sentence for a person. */
export interface Detail {
  readonly field: string;
  readonly message: string;
}

/** An error as it comes in answers, over HTTP and on sockets. */
export interface ErrorObject {
  readonly code: number;
  readonly message: string;
  readonly details?: readonly Detail[];
}

/** The server refused a request. `code` is one of `ErrorCode`; rely on it and on the fields. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly code: number;
  readonly details: readonly Detail[];
  /** The status of an answer over HTTP. */
  readonly status: number | undefined;
  /** After how many milliseconds the request may be sent again, if the server says so. */
  readonly retryAfterMs: number | undefined;
  /** The server to ask instead (code 10). */
  readonly redirect: { readonly address: string; readonly secure: boolean } | undefined;

  constructor(
    error: ErrorObject,
    extra: {
      status?: number | undefined;
      retryAfterMs?: number | undefined;
      redirect?: { address: string; secure: boolean } | undefined;
    } = {},
  ) {
    const reasons = (error.details ?? []).map((one) => `${one.field} ${one.message}`).join("; ");
    super(reasons ? `${error.message}: ${reasons}` : error.message);
    this.code = error.code;
    this.details = error.details ?? [];
    this.status = extra.status;
    this.retryAfterMs = extra.retryAfterMs;
    this.redirect = extra.redirect;
  }
}

/** There is no connection, or it was lost before the answer came: the server may have done it. */
export class Disconnected extends Error {
  override readonly name = "Disconnected";
  constructor(message = "the connection was lost before the answer came") {
    super(message);
  }
}

/** No answer came in time: the server may have done it, or may still do it. */
export class TimedOut extends Error {
  override readonly name = "TimedOut";
  constructor(what: string, ms: number) {
    super(`${what}: no answer within ${ms} ms`);
  }
}

/** What came from the server, or from a program in its place, is not of this protocol. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

export function isErrorObject(value: unknown): value is ErrorObject {
  if (typeof value !== "object" || value === null) return false;
  const { code, message } = value as Record<string, unknown>;
  return typeof code === "number" && typeof message === "string";
}
