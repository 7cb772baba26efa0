/**
 * The credential of a session, kept and refreshed. Several tabs of a browser share it: one of them
 * refreshes, and the others take the new keys.
 */

import { Emitter } from "./emitter.js";
import { Disconnected, ErrorCode, Refused, TimedOut } from "./errors.js";
import type { Http } from "./http.js";
import { background } from "./timing.js";

/** The keys of one token. `…_until` are times of this machine's clock, in ms. */
export interface Credentials {
  readonly session: string;
  readonly token: string;
  readonly refresh: string;
  readonly token_until: number;
  readonly refresh_until: number;
}

/** Where credentials are kept. Another page may change what is kept. */
export interface CredentialStore {
  load(): Credentials | undefined;
  save(credentials: Credentials | undefined): void;
  /** Calls `changed` when another page has saved; returns what ends that. */
  watch?(changed: () => void): () => void;
}

/** Keeps them as long as the program runs. */
export class MemoryStore implements CredentialStore {
  #kept: Credentials | undefined;

  load(): Credentials | undefined {
    return this.#kept;
  }

  save(credentials: Credentials | undefined): void {
    this.#kept = credentials;
  }
}

/** Keeps them in the browser, for all pages of this origin: the user stays logged in. */
export class BrowserStore implements CredentialStore {
  constructor(readonly key: string) {}

  load(): Credentials | undefined {
    try {
      const kept: unknown = JSON.parse(localStorage.getItem(this.key) ?? "null");
      if (typeof kept !== "object" || kept === null) return undefined;
      const value = kept as Credentials;
      const whole = typeof value.token === "string" && typeof value.refresh === "string";
      return whole ? value : undefined;
    } catch {
      return undefined;
    }
  }

  save(credentials: Credentials | undefined): void {
    try {
      if (credentials === undefined) localStorage.removeItem(this.key);
      else localStorage.setItem(this.key, JSON.stringify(credentials));
    } catch {
      // The browser keeps nothing for this page: the credential lives as long as the page.
    }
  }

  watch(changed: () => void): () => void {
    const listener = (event: StorageEvent) => {
      if (event.key === this.key || event.key === null) changed();
    };
    addEventListener("storage", listener);
    return () => removeEventListener("storage", listener);
  }
}

export interface CredentialEvents {
  /** There are new keys; undefined: there are none any more. */
  changed: Credentials | undefined;
}

/** Keys are replaced when so much of their life is left … */
const EARLY = 0.25;
/** … but not earlier than so long before their end. */
const EARLY_LIMIT_MS = 600_000;
const AGAIN_MS = 5_000;

/** For so long at most a page waits until it sees what another one has kept. */
const SEEN_MS = 3_000;
const LOOK_MS = 25;

interface Locks {
  request<T>(name: string, work: () => Promise<T>): Promise<T>;
  request<T>(
    name: string,
    options: { ifAvailable: true },
    work: (lock: object | null) => Promise<T>,
  ): Promise<T>;
}

/** Keeps the credential of one session fresh until `close`. */
export class CredentialKeeper extends Emitter<CredentialEvents> {
  #current: Credentials | undefined;
  #cancel = () => {};
  #refreshing: Promise<void> | undefined;
  readonly #unwatch: () => void;
  #closed = false;

  constructor(
    readonly http: Http,
    readonly store: CredentialStore,
  ) {
    super();
    this.#current = store.load();
    this.#unwatch = store.watch?.(() => this.#take(store.load())) ?? (() => {});
    this.#schedule();
  }

  get current(): Credentials | undefined {
    return this.#current;
  }

  /** Takes the keys of a login, or forgets those it has. */
  set(credentials: Credentials | undefined): void {
    this.store.save(credentials);
    this.#take(credentials);
  }

  /** Gets new keys, or those that another page has got meanwhile. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  close(): void {
    this.#closed = true;
    this.#cancel();
    this.#unwatch();
  }

  async #refresh(): Promise<void> {
    const before = this.#current;
    if (before === undefined) return;
    await locked(`reileta ${this.http.base}`, async (waited) => {
      let kept = this.store.load();
      // What another page has kept may come here later than its lock does.
      for (let ms = 0; waited && ms < SEEN_MS && kept?.refresh === before.refresh; ms += LOOK_MS) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        kept = this.store.load();
      }
      if (kept?.refresh !== before.refresh) {
        this.#take(kept); // another page was faster, or has logged out
        return;
      }
      try {
        this.set(await this.#renewed(before));
      } catch (error) {
        const gone = error instanceof Refused && error.code === ErrorCode.CredentialInvalid;
        if (!gone) throw error;
        // The key that was used may still be valid for a while, but nothing replaces it.
        this.set(undefined);
      }
    });
  }

  async #renewed(before: Credentials): Promise<Credentials> {
    const { token, time } = await this.http.whole("post", "/auth/refresh", {
      body: { refresh: before.refresh },
      token: null,
    });
    return credentialsOf(token, time);
  }

  #take(credentials: Credentials | undefined): void {
    if (credentials?.token === this.#current?.token) return;
    this.#current = credentials;
    this.#schedule();
    this.emit("changed", credentials);
  }

  #schedule(): void {
    this.#cancel();
    const current = this.#current;
    if (current === undefined || this.#closed) return;
    // What ends first decides: with the refresh key, the token can't be replaced any more.
    const end = Math.min(current.token_until, current.refresh_until);
    const left = end - Date.now();
    this.#refreshIn(Math.max(0, left - Math.min(left * EARLY, EARLY_LIMIT_MS)));
  }

  #refreshIn(ms: number): void {
    this.#cancel = background(ms, () => {
      this.refresh().catch((error: unknown) => {
        const passing = error instanceof Disconnected || error instanceof TimedOut;
        if ((passing || error instanceof Refused) && !this.#closed) this.#refreshIn(AGAIN_MS);
      });
    });
  }
}

/**
 * Only one page at a time does the work, where the platform can tell pages apart. The work learns
 * whether it had to wait for another page.
 */
async function locked(name: string, work: (waited: boolean) => Promise<void>): Promise<void> {
  const { locks } = (globalThis.navigator ?? {}) as { locks?: Locks };
  if (locks === undefined) return work(false);
  const done = await locks.request(name, { ifAvailable: true }, async (lock) => {
    if (lock !== null) await work(false);
    return lock !== null;
  });
  if (!done) await locks.request(name, () => work(true));
}

/** The credentials in a token of the session API; `now` is the server's clock, in ms. */
export function credentialsOf(
  token: {
    access: string;
    refresh?: string | null;
    access_expires: string;
    refresh_expires: string;
    session: { id: string };
  },
  now: number,
): Credentials {
  const here = (time: string) => Date.now() + (Date.parse(isoTime(time)) - now);
  return {
    session: token.session.id,
    token: token.access,
    refresh: token.refresh ?? "",
    token_until: here(token.access_expires),
    refresh_until: here(token.refresh_expires),
  };
}

/** The same time in the form that all engines read: milliseconds, and a colon in the offset. */
function isoTime(text: string): string {
  return text.replace(/(\.\d{3})\d*/, "$1").replace(/([+-]\d\d)(\d\d)$/, "$1:$2");
}
