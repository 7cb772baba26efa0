/** All other players, drawn in four calls: bodies, heads, faces and hands are instances. */
import {
  CanvasTexture,
  CapsuleGeometry,
  Color,
  DynamicDrawUsage,
  Euler,
  Group,
  InstancedMesh,
  LatheGeometry,
  LinearFilter,
  Matrix4,
  MeshLambertMaterial,
  Quaternion,
  SphereGeometry,
  Sprite,
  SpriteMaterial,
  SRGBColorSpace,
  Vector2,
  Vector3,
} from "three";

import { hueOf } from "./look.js";
import { type Pose, Track } from "./pose.js";

interface Avatar {
  readonly track: Track;
  label: string;
  /** undefined: it is drawn soon. */
  name: Sprite | undefined;
  /** What stands over the head, until `bubbleUntil`. */
  said: string | undefined;
  /** `said`, if it is drawn already. */
  bubble: Sprite | undefined;
  bubbleUntil: number;
  typing: boolean;
  pose: Pose | undefined;
  /** How far it has walked, for the swing of its hands. */
  walked: number;
}

const BUBBLE_MS = 7_000;
const NAMES_M = 24;
/** So many texts are drawn in a frame, a few ms at most. However many players come in or talk at once,
 * the page goes on; the others' texts follow in the next frames. */
const TEXTS_A_FRAME = 3;
/** The outline of a body from the ground up, as wide as it is there. */
const BODY_PROFILE = [
  [0.001, 0.03], [0.15, 0.03], [0.2, 0.09], [0.205, 0.3], [0.19, 0.62], [0.2, 0.86], [0.235, 1.02],
  [0.228, 1.14], [0.17, 1.24], [0.08, 1.29], [0.001, 1.3],
].map(([x, y]) => new Vector2(x, y));

export class Avatars {
  readonly group = new Group();
  readonly #avatars = new Map<string, Avatar>();
  #capacity = 0;
  #bodies!: InstancedMesh;
  #heads!: InstancedMesh;
  #faces!: InstancedMesh;
  #hands!: InstancedMesh;
  #dirty = true;
  /** Whose name or words are to be drawn, the one that waits longest first. */
  readonly #undrawn = new Set<Avatar>();
  readonly #geometries;
  readonly #first: Sprite;
  readonly #skin = new MeshLambertMaterial();
  readonly #visor = new MeshLambertMaterial({ color: 0x20243a });

  /** `coarse`: with fewer corners, for machines whose processor draws. */
  constructor(coarse: boolean) {
    const round = coarse ? 0.5 : 1;
    this.#geometries = {
      body: new LatheGeometry(BODY_PROFILE, 14 * round),
      head: new SphereGeometry(0.185, 20 * round, 14 * round),
      face: new CapsuleGeometry(0.07, 0.14, coarse ? 2 : 4, coarse ? 6 : 8).rotateZ(Math.PI / 2),
      hand: new SphereGeometry(0.065, 10 * round, 8 * round),
    };
    this.#grow(16);
    // The first frame translates the program for texts, not the one after the first name has come.
    const first = label("");
    first.frustumCulled = false;
    first.scale.setScalar(0);
    this.group.add(first);
    this.#first = first;
  }

  get size(): number {
    return this.#avatars.size;
  }

  add(id: string, name: string): void {
    if (this.#avatars.has(id)) return this.rename(id, name);
    if (this.#avatars.size === this.#capacity) this.#grow(2 * this.#capacity);
    const avatar: Avatar = {
      track: new Track(), label: name, name: undefined, said: undefined, bubble: undefined, bubbleUntil: 0,
      typing: false, pose: undefined, walked: 0,
    };
    this.#avatars.set(id, avatar);
    this.#undrawn.add(avatar);
    this.#colour();
  }

  rename(id: string, name: string): void {
    const avatar = this.#avatars.get(id);
    if (!avatar || avatar.label === name) return;
    avatar.name = this.#drop(avatar.name);
    avatar.label = name;
    this.#undrawn.add(avatar);
    this.#colour();
  }

  remove(id: string): void {
    const avatar = this.#avatars.get(id);
    if (!avatar) return;
    this.#avatars.delete(id);
    this.#undrawn.delete(avatar);
    this.#drop(avatar.name);
    this.#drop(avatar.bubble);
    this.#colour();
  }

  move(id: string, pose: Pose, now: number): void {
    this.#avatars.get(id)?.track.add(pose, now);
    this.#dirty = true;
  }

  say(id: string, text: string, now: number): void {
    const avatar = this.#avatars.get(id);
    if (avatar) this.#show(avatar, text.length > 90 ? `${text.slice(0, 88)} …` : text, now + BUBBLE_MS);
  }

  typing(id: string, on: boolean): void {
    const avatar = this.#avatars.get(id);
    if (!avatar || avatar.typing === on) return;
    avatar.typing = on;
    if (on) this.#show(avatar, "…", Infinity);
    else if (avatar.bubbleUntil === Infinity) this.#show(avatar, undefined, 0);
  }

  where(id: string): Pose | undefined {
    return this.#avatars.get(id)?.pose;
  }

  /** Brings all up to date. Returns whether anything has changed. */
  update(now: number, eye: Vector3): boolean {
    let changed = this.#dirty || this.#undrawn.size > 0;
    for (const avatar of this.#avatars.values()) {
      if (avatar.said !== undefined && avatar.bubbleUntil < now) {
        this.#show(avatar, undefined, 0);
        changed = true;
      }
      changed ||= avatar.track.moving(now);
    }
    if (!changed) return false;
    this.#dirty = false;
    this.#drawTexts();
    let index = 0;
    for (const avatar of this.#avatars.values()) this.#place(avatar, index++, now, eye);
    for (const mesh of [this.#bodies, this.#heads, this.#faces, this.#hands]) {
      mesh.instanceMatrix.needsUpdate = true;
    }
    return true;
  }

  dispose(): void {
    for (const id of [...this.#avatars.keys()]) this.remove(id);
    for (const mesh of [this.#bodies, this.#heads, this.#faces, this.#hands]) mesh.dispose();
    this.#drop(this.#first);
    for (const geometry of Object.values(this.#geometries)) geometry.dispose();
    this.#skin.dispose();
    this.#visor.dispose();
  }

  #place(avatar: Avatar, index: number, now: number, eye: Vector3): void {
    const pose = avatar.track.at(now);
    const shown = pose !== undefined;
    if (avatar.name) avatar.name.visible = false;
    if (avatar.bubble) avatar.bubble.visible = shown;
    if (!pose) {
      for (const mesh of [this.#bodies, this.#heads, this.#faces]) mesh.setMatrixAt(index, NOWHERE);
      this.#hands.setMatrixAt(2 * index, NOWHERE);
      this.#hands.setMatrixAt(2 * index + 1, NOWHERE);
      return;
    }
    const before = avatar.pose;
    if (before) avatar.walked += Math.min(1, Math.hypot(pose.x - before.x, pose.z - before.z));
    avatar.pose = pose;
    const { x, y, z, head } = pose;
    turned.setFromEuler(angles.set(0, pose.yaw, 0));
    position.set(x, y, z);
    matrix.compose(position, turned, scale.set(1, Math.max(0.2, (head - 0.12) / 1.4), 1));
    this.#bodies.setMatrixAt(index, matrix);
    gaze.setFromEuler(angles.set(pose.pitch, pose.yaw, 0, "YXZ"));
    position.set(x, y + head, z);
    this.#heads.setMatrixAt(index, matrix.compose(position, gaze, scale.set(1, 1.12, 1)));
    offset.set(0, 0.02, -0.145).applyQuaternion(gaze);
    this.#faces.setMatrixAt(index, matrix.compose(position.add(offset), gaze, scale.set(1, 1, 0.8)));
    for (const side of [-1, 1] as const) {
      const hand = side < 0 ? pose.left : pose.right;
      if (hand) position.set(x + hand[0], y + hand[1], z + hand[2]);
      else {
        const swing = Math.sin(avatar.walked * 4) * 0.12 * side;
        offset.set(0.3 * side, 0.52 * head, -0.08 + swing).applyQuaternion(turned);
        position.set(x, y, z).add(offset);
      }
      matrix.compose(position, turned, scale.set(1, 1, 1));
      this.#hands.setMatrixAt(2 * index + (side < 0 ? 0 : 1), matrix);
    }
    if (avatar.name) {
      avatar.name.visible = Math.hypot(eye.x - x, eye.z - z) < NAMES_M;
      avatar.name.position.set(x, y + head + 0.36, z);
    }
    avatar.bubble?.position.set(x, y + head + 0.53, z);
  }

  #show(avatar: Avatar, text: string | undefined, until: number): void {
    avatar.bubble = this.#drop(avatar.bubble);
    avatar.said = text;
    avatar.bubbleUntil = until;
    if (text !== undefined) this.#undrawn.add(avatar);
    // What is typed after what was said is shown when that is gone.
    if (text === undefined && avatar.typing) this.#show(avatar, "…", Infinity);
    this.#dirty = true;
  }

  #drawTexts(): void {
    let left = TEXTS_A_FRAME;
    for (const avatar of this.#undrawn) {
      if (left-- === 0) return;
      this.#undrawn.delete(avatar);
      if (!avatar.name) this.group.add((avatar.name = label(avatar.label)));
      if (!avatar.bubble && avatar.said !== undefined) this.group.add((avatar.bubble = bubble(avatar.said)));
    }
  }

  #drop(sprite: Sprite | undefined): undefined {
    if (!sprite) return;
    this.group.remove(sprite);
    sprite.material.map?.dispose();
    sprite.material.dispose();
  }

  /** Makes room for more. The geometries and materials stay. */
  #grow(capacity: number): void {
    const { body, head, face, hand } = this.#geometries;
    for (const mesh of [this.#bodies, this.#heads, this.#faces, this.#hands]) {
      if (!mesh) continue;
      this.group.remove(mesh);
      mesh.dispose();
    }
    this.#capacity = capacity;
    this.#bodies = new InstancedMesh(body, this.#skin, capacity);
    this.#heads = new InstancedMesh(head, this.#skin, capacity);
    this.#faces = new InstancedMesh(face, this.#visor, capacity);
    this.#hands = new InstancedMesh(hand, this.#skin, 2 * capacity);
    for (const mesh of [this.#bodies, this.#heads, this.#faces, this.#hands]) {
      mesh.frustumCulled = false;
      mesh.instanceMatrix.setUsage(DynamicDrawUsage);
      // Colours are there from the first frame on: with the first player, the program would change.
      if (mesh !== this.#faces) mesh.setColorAt(0, colour);
      this.group.add(mesh);
    }
    this.#colour();
  }

  /** Each player has a colour of its own. Places move up when a player leaves. */
  #colour(): void {
    let index = 0;
    for (const { label: name } of this.#avatars.values()) {
      const hue = hueOf(name);
      this.#bodies.setColorAt(index, colour.setHSL(hue, 0.6, 0.46));
      this.#heads.setColorAt(index, colour.setHSL(hue, 0.5, 0.63));
      this.#hands.setColorAt(2 * index, colour);
      this.#hands.setColorAt(2 * index + 1, colour);
      index++;
    }
    for (const mesh of [this.#bodies, this.#heads, this.#faces]) mesh.count = index;
    this.#hands.count = 2 * index;
    for (const mesh of [this.#bodies, this.#heads, this.#hands]) {
      if (mesh.instanceColor) mesh.instanceColor.needsUpdate = true;
    }
    this.#dirty = true;
  }
}

const NOWHERE = new Matrix4().makeScale(0, 0, 0);
const matrix = new Matrix4();
const position = new Vector3();
const offset = new Vector3();
const scale = new Vector3();
const turned = new Quaternion();
const gaze = new Quaternion();
const angles = new Euler(0, 0, 0, "YXZ");
const colour = new Color();

function label(text: string): Sprite {
  return textSprite([text], { size: 30, weight: 600, ink: "#ffffff", ground: "rgba(18, 20, 28, 0.72)", height: 0.2 });
}

function bubble(text: string): Sprite {
  const sprite = textSprite(wrapped(text, 26), {
    size: 34, weight: 500, ink: "#1a1d2b", ground: "rgba(255, 255, 255, 0.95)", height: 0.24,
  });
  sprite.center.set(0.5, 0);
  return sprite;
}

/** Lines of at most so many characters, broken between words where that is possible. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [""];
  for (const word of text.split(/\s+/).flatMap((one) => one.match(new RegExp(`.{1,${width}}`, "gu")) ?? [])) {
    const line = lines.at(-1) ?? "";
    if (line && line.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.slice(0, 4);
}

interface TextStyle {
  readonly size: number;
  readonly weight: number;
  readonly ink: string;
  readonly ground: string;
  /** The height of one line in the room, in metres. */
  readonly height: number;
}

function textSprite(lines: string[], { size, weight, ink, ground, height }: TextStyle): Sprite {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const line = Math.round(size * 1.25);
  const edge = Math.round(size * 0.45);
  const font = `${weight} ${size}px system-ui, "Noto Sans", "DejaVu Sans", sans-serif`;
  if (context) {
    context.font = font;
    const width = Math.max(...lines.map((text) => context.measureText(text).width));
    canvas.width = Math.min(1024, Math.ceil(width) + 2 * edge);
    canvas.height = lines.length * line + edge;
    context.fillStyle = ground;
    context.beginPath();
    context.roundRect(0, 0, canvas.width, canvas.height, edge);
    context.fill();
    context.font = font;
    context.fillStyle = ink;
    context.textAlign = "center";
    context.textBaseline = "middle";
    lines.forEach((text, index) => {
      context.fillText(text, canvas.width / 2, edge / 2 + (index + 0.52) * line, canvas.width - edge);
    });
  }
  const map = new CanvasTexture(canvas);
  map.colorSpace = SRGBColorSpace;
  map.minFilter = LinearFilter;
  map.generateMipmaps = false;
  const sprite = new Sprite(new SpriteMaterial({ map, depthWrite: false, fog: false }));
  const metres = height / (line + edge);
  sprite.scale.set(canvas.width * metres, canvas.height * metres, 1);
  return sprite;
}
