/** Keys, mouse and touch, as directions. */

const KEYS: Record<string, string> = {
  KeyW: "forward", ArrowUp: "forward", KeyS: "back", ArrowDown: "back", KeyA: "left", KeyD: "right",
  ArrowLeft: "turnLeft", ArrowRight: "turnRight", KeyQ: "turnLeft", KeyE: "turnRight",
  ShiftLeft: "run", ShiftRight: "run",
};
const LOOK = 0.0045;
/** So many pixels of the finger are a full step. */
const STICK_PX = 56;

export interface Stick {
  /** Where the finger went down, in the canvas. */
  readonly from: { x: number; y: number };
  readonly by: { x: number; y: number };
}

export class Controls {
  /** Is called when the stick under a finger comes, moves or goes. */
  onStick: (stick: Stick | undefined) => void = () => {};

  readonly #held = new Set<string>();
  readonly #cancel = new AbortController();
  readonly #canvas: HTMLElement;
  #look = { yaw: 0, pitch: 0 };
  #walker: { pointer: number; x: number; y: number } | undefined;
  #looker: { pointer: number; x: number; y: number } | undefined;
  #stick = { x: 0, y: 0 };

  constructor(canvas: HTMLElement) {
    this.#canvas = canvas;
    const { signal } = this.#cancel;
    canvas.addEventListener("keydown", (event) => this.#key(event, true), { signal });
    addEventListener("keyup", (event) => this.#held.delete(KEYS[event.code] ?? ""), { signal });
    addEventListener("blur", () => this.#held.clear(), { signal });
    canvas.addEventListener("blur", () => this.#held.clear(), { signal });
    canvas.addEventListener("pointerdown", (event) => this.#down(event), { signal });
    canvas.addEventListener("pointermove", (event) => this.#move(event), { signal });
    for (const name of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(name, (event) => this.#up(event), { signal });
    }
  }

  /** Where to go: each from -1 to 1. */
  direction(): { forward: number; aside: number; turn: number; run: boolean } {
    const on = (name: string) => (this.#held.has(name) ? 1 : 0);
    return {
      forward: on("forward") - on("back") - this.#stick.y,
      aside: on("right") - on("left") + this.#stick.x,
      turn: on("turnLeft") - on("turnRight"),
      run: this.#held.has("run"),
    };
  }

  /** How far to look round since the last call, in radians. */
  takeLook(): { yaw: number; pitch: number } {
    const look = this.#look;
    this.#look = { yaw: 0, pitch: 0 };
    return look;
  }

  dispose(): void {
    this.#cancel.abort();
  }

  #key(event: KeyboardEvent, down: boolean): void {
    const name = KEYS[event.code];
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    if (down) this.#held.add(name);
    if (name !== "run") event.preventDefault();
  }

  #down(event: PointerEvent): void {
    const box = this.#canvas.getBoundingClientRect();
    const at = { pointer: event.pointerId, x: event.clientX, y: event.clientY };
    this.#canvas.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch" && event.clientX - box.left < box.width / 2 && !this.#walker) {
      this.#walker = at;
      this.#tell(at.x, at.y);
    } else this.#looker ??= at;
  }

  #move(event: PointerEvent): void {
    const looker = this.#looker;
    if (looker?.pointer === event.pointerId) {
      this.#look.yaw += (event.clientX - looker.x) * LOOK;
      this.#look.pitch += (event.clientY - looker.y) * LOOK;
      looker.x = event.clientX;
      looker.y = event.clientY;
    } else if (this.#walker?.pointer === event.pointerId) this.#tell(event.clientX, event.clientY);
  }

  #up(event: PointerEvent): void {
    if (this.#looker?.pointer === event.pointerId) this.#looker = undefined;
    if (this.#walker?.pointer !== event.pointerId) return;
    this.#walker = undefined;
    this.#stick = { x: 0, y: 0 };
    this.onStick(undefined);
  }

  #tell(x: number, y: number): void {
    const walker = this.#walker;
    if (!walker) return;
    const by = { x: x - walker.x, y: y - walker.y };
    const length = Math.hypot(by.x, by.y);
    const within = length > STICK_PX ? STICK_PX / length : 1;
    this.#stick = { x: (by.x * within) / STICK_PX, y: (by.y * within) / STICK_PX };
    const box = this.#canvas.getBoundingClientRect();
    this.onStick({
      from: { x: walker.x - box.left, y: walker.y - box.top },
      by: { x: by.x * within, y: by.y * within },
    });
  }
}
