/** The room as it is seen: one canvas, the own place in it, and all others. It knows no server. */
import { Group, PerspectiveCamera, Scene, SRGBColorSpace, Vector3, WebGLRenderer } from "three";

import { Avatars } from "./avatars.js";
import { Controls } from "./controls.js";
import type { Look } from "./look.js";
import { Place } from "./place.js";
import { HEAD_M, type Point, type Pose, REACH_M } from "./pose.js";

type Grip = ReturnType<WebGLRenderer["xr"]["getControllerGrip"]>;

const WALK_M_S = 2.6;
const RUN = 2;
const TURN_S = 1.9;
/** A frame that takes longer is not walked in whole: the page was asleep. */
const LONGEST_S = 0.1;
/** Frames slower than this on average lower the resolution; faster ones raise it. */
const SLOW_MS = 36;
const FAST_MS = 18;
/** Of the window's pixels in a row, at least. */
const COARSEST = 0.4;
const SETTLED_FRAMES = 24;
/** Where frames are very slow, one does not wait for so many. */
const VERY_SLOW_MS = 80;
const VERY_SLOW_FRAMES = 6;

export class Stage {
  readonly avatars: Avatars;
  readonly controls: Controls;
  readonly #renderer: WebGLRenderer;
  readonly #scene = new Scene();
  readonly #camera = new PerspectiveCamera(70, 1, 0.05, 140);
  /** Where the own feet are. In a headset, the camera moves in it. */
  readonly #rig = new Group();
  readonly #place: Place;
  readonly #resized: ResizeObserver;
  readonly #eye = new Vector3();
  readonly #moved: (pose: Pose) => void;
  #pitch = -0.06;
  #last = 0;
  #changed = true;
  /** What holds the controllers of the headset. */
  readonly #grips = new Map<XRHandedness, Grip>();
  #quality = Math.min(2, devicePixelRatio);
  #slowness = FAST_MS + 4;
  #sinceQuality = 0;
  /** How many frames were drawn; for measurements. */
  frames = 0;

  /** `moved` gets the own pose whenever it has changed. */
  constructor(
    readonly canvas: HTMLCanvasElement,
    options: { world: string; look: Look; start: Pick<Pose, "x" | "z" | "yaw">; moved: (pose: Pose) => void },
  ) {
    this.#moved = options.moved;
    // Where the processor draws, smooth edges would cost most of the frames.
    const coarse = drawnInSoftware();
    this.#renderer = new WebGLRenderer({ canvas, antialias: !coarse, powerPreference: "high-performance" });
    this.avatars = new Avatars(coarse);
    this.#renderer.outputColorSpace = SRGBColorSpace;
    this.#renderer.xr.enabled = true;
    this.#place = new Place(this.#scene, options.world);
    this.#place.show(options.look);
    this.#scene.add(this.avatars.group, this.#rig);
    this.#rig.add(this.#camera);
    const { x, z, yaw } = options.start;
    this.#rig.position.set(x, 0, z);
    this.#rig.rotation.y = yaw;
    this.controls = new Controls(canvas);
    this.#resized = new ResizeObserver(() => this.#resize());
    this.#resized.observe(canvas);
    this.#resize();
    this.#renderer.setAnimationLoop((time) => this.#frame(time));
    this.#moved(this.pose);
  }

  /** The own pose. */
  get pose(): Pose {
    const { position, rotation } = this.#rig;
    const xr = this.#renderer.xr;
    if (!xr.isPresenting) {
      const { x, z } = position;
      return { x, y: 0, z, yaw: rotation.y, pitch: this.#pitch, head: HEAD_M, left: undefined, right: undefined };
    }
    const camera = xr.getCamera();
    const place = camera.getWorldPosition(new Vector3());
    const gaze = camera.getWorldDirection(new Vector3());
    const hand = (side: "left" | "right"): Point | undefined => {
      const grip = this.#grips.get(side);
      if (!grip?.visible) return undefined;
      const at = grip.getWorldPosition(new Vector3());
      return [at.x - place.x, at.y, at.z - place.z];
    };
    return {
      x: place.x, y: 0, z: place.z, head: place.y,
      yaw: Math.atan2(-gaze.x, -gaze.z), pitch: Math.asin(Math.max(-1, Math.min(1, gaze.y))),
      left: hand("left"), right: hand("right"),
    };
  }

  show(look: Look): void {
    this.#place.show(look);
    this.#changed = true;
  }

  /** Draws again, because an avatar came or went. */
  refresh(): void {
    this.#changed = true;
  }

  /** What is seen now, as a PNG of 640 × 360. */
  async picture(): Promise<Blob | undefined> {
    this.#renderer.render(this.#scene, this.#camera);
    const target = document.createElement("canvas");
    [target.width, target.height] = [640, 360];
    const { width, height } = this.canvas;
    const part = Math.min(width / 640, height / 360);
    target.getContext("2d")?.drawImage(
      this.canvas, (width - 640 * part) / 2, (height - 360 * part) / 2, 640 * part, 360 * part, 0, 0, 640, 360,
    );
    return (await new Promise<Blob | null>((done) => target.toBlob(done, "image/png"))) ?? undefined;
  }

  /** Shows the room in a headset until that ends. Call it in a click. */
  async enterHeadset(): Promise<void> {
    const session = await navigator.xr?.requestSession("immersive-vr", {
      optionalFeatures: ["local-floor", "bounded-floor"],
    });
    if (!session) return;
    const { xr } = this.#renderer;
    xr.setReferenceSpaceType("local-floor");
    for (const index of [0, 1]) this.#hold(xr.getControllerGrip(index));
    session.addEventListener("end", () => {
      this.#camera.position.set(0, HEAD_M, 0);
      this.#resize();
    });
    await xr.setSession(session);
  }

  /** Learns in which hand a controller is: their order says nothing of it. */
  #hold(grip: Grip): void {
    if (grip.parent === this.#rig) return; // of an earlier session
    this.#rig.add(grip);
    grip.addEventListener("connected", ({ data }) => this.#grips.set(data.handedness, grip));
    grip.addEventListener("disconnected", ({ data }) => this.#grips.delete(data.handedness));
  }

  dispose(): void {
    this.#renderer.setAnimationLoop(null);
    this.#resized.disconnect();
    this.controls.dispose();
    this.avatars.dispose();
    this.#renderer.dispose();
  }

  #frame(time: number): void {
    const seconds = Math.min(LONGEST_S, (time - this.#last) / 1000);
    const took = time - this.#last;
    this.#last = time;
    const now = performance.now();
    const walked = this.#walk(seconds);
    if (walked || this.#renderer.xr.isPresenting) this.#moved(this.pose);
    this.#camera.getWorldPosition(this.#eye);
    const moved = this.avatars.update(now, this.#eye);
    // A still room costs nothing.
    if (!walked && !moved && !this.#changed && !this.#renderer.xr.isPresenting) return;
    this.#changed = false;
    this.#adapt(took);
    this.#renderer.render(this.#scene, this.#camera);
    this.frames++;
  }

  /** Moves and turns as the controls say. Returns whether that changed anything. */
  #walk(seconds: number): boolean {
    const { forward, aside, turn, run } = this.controls.direction();
    const look = this.controls.takeLook();
    const stick = this.#renderer.xr.isPresenting ? this.#stick() : { forward: 0, aside: 0, turn: 0 };
    const ahead = forward + stick.forward;
    const side = aside + stick.aside;
    const turning = turn + stick.turn;
    if (!ahead && !side && !turning && !look.yaw && !look.pitch) return false;
    const rig = this.#rig;
    rig.rotation.y += turning * TURN_S * seconds + look.yaw;
    this.#pitch = Math.max(-1.3, Math.min(1.3, this.#pitch + look.pitch));
    const length = Math.max(1, Math.hypot(ahead, side));
    const step = (WALK_M_S * (run ? RUN : 1) * seconds) / length;
    const angle = this.#renderer.xr.isPresenting ? this.pose.yaw : rig.rotation.y;
    const x = rig.position.x + (-Math.sin(angle) * ahead + Math.cos(angle) * side) * step;
    const z = rig.position.z + (-Math.cos(angle) * ahead - Math.sin(angle) * side) * step;
    const far = Math.hypot(x, z);
    const within = far > REACH_M ? REACH_M / far : 1;
    rig.position.set(x * within, 0, z * within);
    this.#camera.rotation.set(this.#pitch, 0, 0);
    return true;
  }

  /** The sticks of the controllers: the left one walks, the right one turns. */
  #stick(): { forward: number; aside: number; turn: number } {
    const made = { forward: 0, aside: 0, turn: 0 };
    for (const source of this.#renderer.xr.getSession()?.inputSources ?? []) {
      const axes = source.gamepad?.axes ?? [];
      const [x, y] = [dead(axes[2] ?? axes[0] ?? 0), dead(axes[3] ?? axes[1] ?? 0)];
      if (source.handedness === "right") made.turn -= x;
      else {
        made.forward -= y;
        made.aside += x;
      }
    }
    return made;
  }

  /** Draws in fewer pixels where frames are slow. */
  #adapt(took: number): void {
    if (took > 1000 || this.#renderer.xr.isPresenting) return;
    this.#slowness += (took - this.#slowness) * 0.1;
    const enough = this.#slowness > VERY_SLOW_MS ? VERY_SLOW_FRAMES : SETTLED_FRAMES;
    if (++this.#sinceQuality < enough) return;
    const best = Math.min(2, devicePixelRatio);
    const next =
      this.#slowness > SLOW_MS
        ? Math.max(COARSEST, this.#quality * Math.max(0.6, Math.min(0.8, Math.sqrt(SLOW_MS / this.#slowness))))
      : this.#slowness < FAST_MS ? Math.min(best, this.#quality * 1.25)
      : this.#quality;
    this.#sinceQuality = 0;
    if (next === this.#quality) return;
    this.#quality = next;
    this.#slowness = FAST_MS + 4; // of frames in the new resolution
    this.#resize();
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (width === 0 || height === 0 || this.#renderer.xr.isPresenting) return;
    this.#renderer.setPixelRatio(this.#quality);
    this.#renderer.setSize(width, height, false);
    this.#camera.position.set(0, HEAD_M, 0);
    this.#camera.rotation.set(this.#pitch, 0, 0);
    this.#camera.aspect = width / height;
    this.#camera.fov = width < height ? 80 : 65;
    this.#camera.updateProjectionMatrix();
    this.#changed = true;
  }
}

function dead(value: number): number {
  return Math.abs(value) < 0.15 ? 0 : value;
}

/** Whether no graphics processor draws. */
function drawnInSoftware(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return true;
  const names = context.getExtension("WEBGL_debug_renderer_info");
  const renderer = String(context.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : context.RENDERER));
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(renderer);
}
