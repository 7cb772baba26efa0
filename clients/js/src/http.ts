/** Requests over HTTP: from the envelope to a value, or to an error. */

import { Disconnected, isErrorObject, ProtocolError, Refused, TimedOut } from "./errors.js";
import type { paths } from "./generated/openapi.js";
import { Backoff, sleep } from "./timing.js";

export type Method = "get" | "put" | "post" | "delete" | "patch";

/** The paths that have an operation of this method. */
export type PathsOf<M extends Method> = {
  [P in keyof paths]: paths[P] extends { [K in M]: object } ? P : never;
}[keyof paths];

type OperationOf<M extends Method, P extends PathsOf<M>> = paths[P] extends { [K in M]: infer O }
  ? O
  : never;

type PathOf<O> = O extends { parameters: { path: infer V } } ? { path: V } : { path?: never };
type QueryOf<O> = O extends { parameters: { query?: infer V } } ? { query?: V } : { query?: never };
type BodyOf<O> = O extends { requestBody: { content: { "application/json": infer V } } }
  ? { body: V }
  : O extends { requestBody?: { content: { "application/json": infer V } } }
    ? { body?: V }
    : { body?: never };

/** Path, query and body of an operation, and how to send it. */
export type RequestOf<M extends Method, P extends PathsOf<M>> = PathOf<OperationOf<M, P>> &
  QueryOf<OperationOf<M, P>> &
  BodyOf<OperationOf<M, P>> &
  SendOptions;

/** The whole JSON answer of an operation that succeeds, with its envelope. */
export type EnvelopeOf<M extends Method, P extends PathsOf<M>> =
  OperationOf<M, P> extends {
    responses: { 200: { content: { "application/json": infer V } } };
  }
    ? V
    : never;

/** What an operation of the registry API gives: `data` of its envelope. */
export type DataOf<M extends Method, P extends PathsOf<M>> =
  EnvelopeOf<M, P> extends { data: infer V } ? V : never;

/** The paths whose operation of this method gives `data`: those of the registry API. */
export type DataPathsOf<M extends Method> = {
  [P in PathsOf<M>]: EnvelopeOf<M, P> extends { data: unknown } ? P : never;
}[PathsOf<M>];

export interface SendOptions {
  signal?: AbortSignal | undefined;
  /** Another credential than the client's own; null: none. */
  token?: string | null | undefined;
  headers?: Record<string, string> | undefined;
}

interface Plain extends SendOptions {
  path?: Record<string, string | number> | undefined;
  query?: Record<string, unknown> | undefined;
  body?: unknown;
}

export interface HttpOptions {
  fetch?: typeof fetch | undefined;
  /** The credential of requests that name none. */
  token?: (() => string | undefined) | undefined;
  /** Milliseconds until a request is given up. */
  timeoutMs?: number | undefined;
}

const TIMEOUT_MS = 20_000;
const ATTEMPTS = 3;
const LONGEST_WAIT_MS = 10_000;

/** The HTTP API of one server. Types come from its own description. */
export class Http {
  readonly #fetch: typeof fetch;
  readonly #token: () => string | undefined;
  readonly #timeoutMs: number;

  /** `base` is the server's URL, with its base path. */
  constructor(
    readonly base: string,
    options: HttpOptions = {},
  ) {
    // A browser's `fetch` must be called on the window.
    this.#fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
    this.#token = options.token ?? (() => undefined);
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  }

  get<P extends DataPathsOf<"get">>(path: P, request: RequestOf<"get", P>): Promise<DataOf<"get", P>> {
    return this.#data("get", path, request);
  }

  put<P extends DataPathsOf<"put">>(path: P, request: RequestOf<"put", P>): Promise<DataOf<"put", P>> {
    return this.#data("put", path, request);
  }

  post<P extends DataPathsOf<"post">>(
    path: P,
    request: RequestOf<"post", P>,
  ): Promise<DataOf<"post", P>> {
    return this.#data("post", path, request);
  }

  delete<P extends DataPathsOf<"delete">>(
    path: P,
    request: RequestOf<"delete", P>,
  ): Promise<DataOf<"delete", P>> {
    return this.#data("delete", path, request);
  }

  /** The whole envelope: the session API has its results beside `message`. */
  async whole<M extends Method, P extends PathsOf<M>>(
    method: M,
    path: P,
    request: RequestOf<M, P>,
  ): Promise<EnvelopeOf<M, P>> {
    return (await this.#send(method, path as string, request as Plain)) as EnvelopeOf<M, P>;
  }

  async #data<M extends Method, P extends PathsOf<M>>(
    method: M,
    path: P,
    request: RequestOf<M, P>,
  ): Promise<DataOf<M, P>> {
    const answer = await this.#send(method, path as string, request as Plain);
    if (!("data" in answer)) throw new ProtocolError(`${String(path)}: the answer has no data`);
    return answer["data"] as DataOf<M, P>;
  }

  /** Sends it. A request that only reads is sent again if the server is busy, or not reached. */
  async #send(method: Method, path: string, request: Plain): Promise<Record<string, unknown>> {
    const backoff = new Backoff(500, LONGEST_WAIT_MS);
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(method, path, request);
      } catch (error) {
        if (method !== "get" || attempt === ATTEMPTS) throw error;
        let wait = backoff.next();
        if (error instanceof Refused) {
          const { retryAfterMs } = error;
          if (retryAfterMs === undefined || retryAfterMs > LONGEST_WAIT_MS) throw error;
          wait = retryAfterMs;
        } else if (!(error instanceof Disconnected)) throw error;
        await sleep(wait, request.signal);
      }
    }
  }

  async #once(method: Method, path: string, request: Plain): Promise<Record<string, unknown>> {
    const headers: Record<string, string> = { ...request.headers };
    const token = request.token === undefined ? this.#token() : (request.token ?? undefined);
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: method.toUpperCase(), headers, credentials: "omit" };
    if (request.body !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(request.body);
    }
    const late = AbortSignal.timeout(this.#timeoutMs);
    init.signal = request.signal ? AbortSignal.any([request.signal, late]) : late;
    const url = this.base + filled(path, request.path ?? {}) + queried(request.query ?? {});
    let answer: Response;
    let text: string;
    try {
      answer = await this.#fetch(url, init);
      text = await answer.text();
    } catch (error) {
      request.signal?.throwIfAborted();
      if (late.aborted) throw new TimedOut(`${init.method} ${path}`, this.#timeoutMs);
      const cause = error instanceof Error ? (error.cause ?? error) : error;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new Disconnected(`${this.base} does not answer: ${why}`);
    }
    const envelope = parsed(text);
    if (envelope === undefined) {
      throw new ProtocolError(`${url} answered ${answer.status}, not as a Reileta server does`);
    }
    if (isErrorObject(envelope["error"])) {
      const seconds = Number(answer.headers.get("Retry-After") ?? NaN);
      throw new Refused(envelope["error"], {
        status: answer.status,
        retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : undefined,
        redirect: envelope["redirect"] as { address: string; secure: boolean } | undefined,
      });
    }
    return envelope;
  }
}

function filled(path: string, values: Record<string, string | number>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new TypeError(`${path} needs ${name}`);
    return encodeURIComponent(value);
  });
}

function queried(values: Record<string, unknown>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  if (given.length === 0) return "";
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // below
  }
  return undefined;
}
