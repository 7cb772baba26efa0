/** The place: ground, sky, trees, hills, and a fire to gather round. */
import {
  BackSide,
  BufferAttribute,
  CircleGeometry,
  Color,
  ConeGeometry,
  CylinderGeometry,
  DirectionalLight,
  DodecahedronGeometry,
  Fog,
  Group,
  HemisphereLight,
  InstancedMesh,
  LatheGeometry,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshLambertMaterial,
  OctahedronGeometry,
  RingGeometry,
  type Scene,
  SphereGeometry,
  Vector2,
} from "three";

import { hueOf, type Look, PALETTES } from "./look.js";

const TREES = 46;
const STONES = 9;
const WHITE = new Color(0xffffff);
const FLOWERS = 150;
const BLOSSOMS = [0xfff4d6, 0xf2c94c, 0xe79bb4, 0xffffff, 0x9db4f0];

export class Place {
  readonly #scene: Scene;
  readonly #sky: Mesh<SphereGeometry, MeshBasicMaterial>;
  readonly #ground = new MeshLambertMaterial();
  readonly #path = new MeshLambertMaterial();
  readonly #leaves = new MeshLambertMaterial();
  readonly #hills = new MeshLambertMaterial();
  readonly #above = new HemisphereLight();
  readonly #sun = new DirectionalLight();
  readonly #fire = new Group();
  readonly #flames = [new MeshBasicMaterial({ color: 0xff9a3c }), new MeshBasicMaterial({ color: 0xffd76a })] as const;

  /** `seed` is the world's id: each world has hills and trees of its own. */
  constructor(scene: Scene, seed: string) {
    this.#scene = scene;
    scene.fog = new Fog(0xffffff, 26, 95);
    this.#sky = new Mesh(
      new SphereGeometry(110, 24, 12),
      new MeshBasicMaterial({ side: BackSide, vertexColors: true, fog: false, depthWrite: false }),
    );
    const ground = new Mesh(new CircleGeometry(110, 48).rotateX(-Math.PI / 2), this.#ground);
    // After all that stands before them: what nobody sees is not drawn.
    ground.renderOrder = 1;
    this.#sky.renderOrder = 2;
    const path = new Mesh(new RingGeometry(2.6, 3.9, 56).rotateX(-Math.PI / 2), this.#path);
    path.position.y = 0.012;
    this.#sun.position.set(12, 18, 9);
    scene.add(this.#sky, ground, path, this.#above, this.#sun, this.#fire);
    this.#plant(chance(seed));
    this.#build();
  }

  show({ light, fire }: Look): void {
    const { top, horizon, ground, tree, sun, sky, sunColor } = PALETTES[light];
    this.#ground.color.set(ground);
    this.#path.color.set(ground).lerp(new Color(0xd8c39a), 0.45);
    this.#leaves.color.set(tree);
    this.#hills.color.set(tree).lerp(new Color(horizon), 0.35);
    this.#above.color.set(horizon).lerp(WHITE, 0.5);
    this.#above.groundColor.set(ground);
    this.#above.intensity = sky;
    this.#sun.color.set(sunColor);
    this.#sun.intensity = sun;
    this.#scene.fog?.color.set(horizon);
    this.#fire.position.set(fire[0], 0, fire[1]);
    const { geometry } = this.#sky;
    const places = geometry.getAttribute("position");
    const colours = new Float32Array(places.count * 3);
    const low = new Color(horizon);
    const high = new Color(top);
    const mixed = new Color();
    for (let index = 0; index < places.count; index++) {
      const height = Math.max(0, places.getY(index) / 110);
      mixed.copy(low).lerp(high, Math.min(1, height * 1.6)).toArray(colours, index * 3);
    }
    geometry.setAttribute("color", new BufferAttribute(colours, 3));
  }

  #plant(random: () => number): void {
    const crowns = new InstancedMesh(new ConeGeometry(1, 2.6, 7).translate(0, 2.3, 0), this.#leaves, TREES);
    const trunks = new InstancedMesh(
      new CylinderGeometry(0.16, 0.22, 1.2, 6).translate(0, 0.6, 0),
      new MeshLambertMaterial({ color: 0x7a5a41 }),
      TREES,
    );
    const matrix = new Matrix4();
    const tint = new Color();
    for (let index = 0; index < TREES; index++) {
      const angle = random() * 2 * Math.PI;
      const far = 12 + random() * 34;
      const size = 0.8 + random() * 1.1;
      matrix.makeScale(size, size, size).setPosition(Math.sin(angle) * far, 0, Math.cos(angle) * far);
      crowns.setMatrixAt(index, matrix);
      trunks.setMatrixAt(index, matrix);
      crowns.setColorAt(index, tint.setScalar(0.8 + random() * 0.35));
    }
    this.#scene.add(crowns, trunks);
    const flowers = new InstancedMesh(new OctahedronGeometry(0.07), new MeshLambertMaterial(), FLOWERS);
    for (let index = 0; index < FLOWERS; index++) {
      const angle = random() * 2 * Math.PI;
      const far = 4.4 + random() ** 1.5 * 24;
      const size = 0.5 + random();
      matrix.makeScale(size, size * 0.7, size).setPosition(Math.sin(angle) * far, 0.05, Math.cos(angle) * far);
      flowers.setMatrixAt(index, matrix);
      flowers.setColorAt(index, tint.set(BLOSSOMS[index % BLOSSOMS.length] ?? 0xffffff));
    }
    this.#scene.add(flowers);
    for (let index = 0; index < 7; index++) {
      const angle = ((index + random() * 0.6) / 7) * 2 * Math.PI;
      const far = 70 + random() * 18;
      const hill = new Mesh(new SphereGeometry(1, 18, 10), this.#hills);
      hill.scale.set(22 + random() * 14, 7 + random() * 9, 18);
      hill.position.set(Math.sin(angle) * far, -2, Math.cos(angle) * far);
      hill.rotation.y = angle;
      this.#scene.add(hill);
    }
  }

  #build(): void {
    const stone = new MeshLambertMaterial({ color: 0x8d8f99 });
    const stones = new InstancedMesh(new DodecahedronGeometry(0.12), stone, STONES);
    const matrix = new Matrix4();
    for (let index = 0; index < STONES; index++) {
      const angle = (index / STONES) * 2 * Math.PI;
      matrix.makeRotationY(angle * 3).setPosition(Math.sin(angle) * 0.5, 0.06, Math.cos(angle) * 0.5);
      stones.setMatrixAt(index, matrix);
    }
    const wood = new MeshLambertMaterial({ color: 0x6b4a33 });
    for (const angle of [0, Math.PI / 3, (2 * Math.PI) / 3]) {
      const log = new Mesh(new CylinderGeometry(0.05, 0.05, 0.72, 7).rotateZ(Math.PI / 2), wood);
      log.position.y = 0.07;
      log.rotation.y = angle;
      this.#fire.add(log);
    }
    const flame = (width: number, height: number, x: number, z: number, bright: 0 | 1) => {
      const profile = [[0.001, 0], [0.7, 0.12], [1, 0.3], [0.72, 0.6], [0.3, 0.85], [0.001, 1]];
      const shape = new LatheGeometry(profile.map(([a, b]) => new Vector2((a ?? 0) * width, (b ?? 0) * height)), 10);
      const made = new Mesh(shape, this.#flames[bright]);
      made.position.set(x, 0.06, z);
      return made;
    };
    const outer = [flame(0.17, 0.62, 0, 0, 0), flame(0.11, 0.4, 0.13, 0.04, 0), flame(0.1, 0.34, -0.12, -0.03, 0)];
    const inner = [flame(0.09, 0.34, 0.02, 0.12, 1), flame(0.09, 0.34, -0.02, -0.12, 1)];
    this.#fire.add(stones, ...outer, ...inner);
  }
}

/** Numbers from 0 to 1 that look random, and are the same for the same seed. */
function chance(seed: string): () => number {
  let state = Math.floor(hueOf(seed) * 2 ** 31) + 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
