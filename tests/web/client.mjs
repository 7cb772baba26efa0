// The scenes of test_client.py: people meet in real browsers, at a real server. scenes.mjs says how they
// are played. REILETA_ERRORS holds the codes of errors by name.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

import * as esbuild from "../../clients/web/node_modules/esbuild/lib/main.js";
import * as stage from "./scenes.mjs";
import { check, PASSWORD, PATIENCE_MS, play, server } from "./scenes.mjs";

/** What Chromium says while the server is away. */
const AWAY = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|WebSocket connection to/;
/** What it says of the requests that scenes let the server refuse. */
const REFUSED = /status of 400 .*\/api\/auth\/register$|status of 401 .*\/api\/auth\/login$/;

const iwer = await readFile(new URL("../../clients/web/node_modules/iwer/build/iwer.min.js", import.meta.url), "utf8");
let serverIsAway = false;

const known = (text) => REFUSED.test(text) || (serverIsAway && AWAY.test(text));
const person = (how) => stage.person(how, known);
const tab = (context) => stage.tab(context, known);
const button = (page, name) => page.getByRole("button", { name });
const field = (page, name) => page.getByLabel(name, { exact: true });

async function register(page, username, displayname) {
  await field(page, "Username").fill(username);
  await field(page, "Shown name (optional)").fill(displayname);
  await field(page, "Password").fill(PASSWORD);
  await button(page, "Register and go on").click();
}

async function inside(page, many, of) {
  await page.getByText(`${many} of ${of} here`).waitFor();
  await page.getByText("Drawing the room …").waitFor({ state: "detached" });
}

/** Where one sees another, as the list of people says. */
async function whereabouts(page, name) {
  const row = page.locator(".people li", { hasText: name }).locator(".soft");
  await row.filter({ hasText: / m / }).waitFor();
  return row.textContent();
}

async function untilOther(look, before) {
  const begun = Date.now();
  for (;;) {
    const now = await look();
    if (now !== before) return now;
    if (Date.now() - begun > PATIENCE_MS) throw new Error(`it stays at ${before}`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

async function say(page, text) {
  await page.getByLabel("Say to all").fill(text);
  await button(page, "Send").click();
}

const heard = (page, from, text) =>
  page.locator(".log p", { hasText: `${from}: ${text}` }).first().waitFor();

/** The page of a developer, at an origin of its own. It loads the package file by file, without a bundler. */
async function developersSite(sdk, lines) {
  const scripts = { imports: { "reileta-client": "./sdk/index.js" } };
  const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
    <script type="importmap">${JSON.stringify(scripts)}</script><script type="module" src="lines.js"></script>`;
  const script = async (path) => {
    if (path === "/lines.js") return lines;
    if (path === "/sdk/generated/errors.js") return `export const ErrorCode = ${process.env.REILETA_ERRORS};`;
    const source = await readFile(new URL(path.replace(/^\/sdk\/(.*)\.js$/, "src/$1.ts"), sdk), "utf8");
    return (await esbuild.transform(source, { loader: "ts", target: "es2022" })).code;
  };
  const site = createServer(async ({ url }, answer) => {
    const [type, body] = url === "/" ? ["text/html", html] : ["text/javascript", await script(url)];
    answer.writeHead(200, { "Content-Type": type }).end(body);
  }).listen(0, "127.0.0.1");
  site.unref(); // it ends with the script
  await once(site, "listening");
  return { url: `http://127.0.0.1:${site.address().port}/`, close: () => site.close() };
}

/** The fields that are shown to be wrong, by name. */
const wrongFields = (page) =>
  page.locator("[aria-invalid]").evaluateAll((fields) =>
    fields.map((one) => one.name + (one === document.activeElement ? " with the focus" : "")).join(", "));

function equal(one, other, what) {
  if (one !== other) throw new Error(`${what}: ${one} is not ${other}`);
}

const ann = await person({ colorScheme: "light" });
const bob = await person({ viewport: { width: 390, height: 844 }, colorScheme: "dark", hasTouch: true, isMobile: true });
let link;

const scenes = {
  async "a form says what is wrong with each field"() {
    await ann.goto(server.url);
    await check(ann, "entering");
    await button(ann, "Register and go on").click();
    await ann.getByText("Fill in a username.").waitFor();
    equal(await wrongFields(ann), "username with the focus, password", "the wrong fields");
    await register(ann, "a b", "Ann");
    await ann.getByText("Fill in a username.").waitFor({ state: "detached" });
    await ann.locator("[aria-invalid]").waitFor();
    equal(await wrongFields(ann), "username with the focus", "the wrong field");
  },

  async "a newcomer makes a world and stands in it with a friend"() {
    await register(ann, "ann", "Ann");
    await button(ann, "Make it and go in").click();
    await inside(ann, 1, 32);
    await button(ann, "Leave").click();
    await button(ann, /Open an instance of A meadow/).click();
    await field(ann, "Seats").fill("2");
    await check(ann, "the dialog");
    await button(ann, "Open it and go in").click();
    await inside(ann, 1, 2);
    link = ann.url();
    await bob.goto(link);
    await check(bob, "entering, on a phone");
    await register(bob, "bob", "Bob");
    await Promise.all([inside(ann, 2, 2), inside(bob, 2, 2)]);
  },

  async "they see each other walk, with keys and by touch"() {
    await Promise.all([ann, bob].map((page) => button(page, /^People/).click()));
    await check(bob, "the room, on a phone");
    const [seenByAnn, seenByBob] = await Promise.all([whereabouts(ann, "Bob"), whereabouts(bob, "Ann")]);
    await ann.locator("canvas").focus();
    await ann.keyboard.down("KeyW");
    await untilOther(() => whereabouts(bob, "Ann"), seenByBob);
    await ann.keyboard.up("KeyW");
    const touch = await bob.context().newCDPSession(bob);
    const at = (x, y) => ({ touchPoints: [{ x, y }] });
    const before = await whereabouts(ann, "Bob").catch(() => seenByAnn);
    await touch.send("Input.dispatchTouchEvent", { type: "touchStart", ...at(60, 600) });
    await touch.send("Input.dispatchTouchEvent", { type: "touchMove", ...at(60, 550) });
    await untilOther(() => whereabouts(ann, "Bob"), before);
    await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  },

  async "they talk, and see who is typing"() {
    await bob.getByLabel("Say to all").pressSequentially("Hello");
    await ann.getByText("Bob is typing …").waitFor();
    await say(bob, "Hello Ann");
    await heard(ann, "Bob", "Hello Ann");
    await say(ann, "Hello Bob");
    await heard(bob, "Ann", "Hello Bob");
    await check(ann, "the room with people");
  },

  async "the master's light reaches the others"() {
    await button(ann, "Room").click();
    await field(ann, "Light").selectOption("dusk");
    await button(bob, "Room").click();
    await bob.getByText("Light: Dusk.").waitFor();
    await check(ann, "the panel of the room");
  },

  async "a third waits in line and is let in"() {
    const cem = (scenes.cem = await person({ colorScheme: "dark" }));
    await cem.goto(link);
    await register(cem, "cem", "Cem");
    await cem.getByText("Your place in line").waitFor();
    equal(await cem.locator(".place .number").textContent(), "1", "the place");
    await check(cem, "the line");
    await cem.reload();
    await cem.getByText("The next free seat is yours.").waitFor();
    await button(bob, "Leave").click();
    await inside(cem, 2, 2);
    await bob.getByText("in line").or(bob.getByText("Full")).first().waitFor();
    await check(bob, "the lists, on a phone");
  },

  async "one is kicked and told why"() {
    const { cem } = scenes;
    await button(ann, /^People/).click();
    await button(ann, "Moderate Cem").click();
    await check(ann, "the dialog of moderation");
    await field(ann, "Reason").fill("Please come back tomorrow");
    await button(ann, "Kick").click();
    await cem.getByText("You were removed").waitFor();
    await cem.getByText("“Please come back tomorrow”").waitFor();
    await check(cem, "the end of a visit");
    await cem.context().close();
  },

  async "a list that comes late undoes nothing that was told meanwhile"() {
    let goOn;
    const held = new Promise((resolve) => (goOn = resolve));
    const asked = new Promise((resolve) =>
      bob.route(/\/api\/instances\?/, async (route) => {
        const response = await route.fetch();
        resolve();
        await held;
        await route.fulfill({ response });
      }));
    let subscribed = 0;
    const told = new Promise((resolve) =>
      bob.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => {
        const { command, data } = JSON.parse(payload);
        if (command === "subscribe") subscribed += 1;
        if (command === "update-instance" && data.title === "The attic") resolve();
      })));
    await bob.reload();
    await asked;
    await untilOther(async () => subscribed >= 2, false);
    await ann.evaluate(async () => {
      const { token } = JSON.parse(Object.values(localStorage)[0]);
      const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
      const { data } = await (await fetch("/api/worlds", { headers })).json();
      const body = JSON.stringify({ world: data.items[0].id, title: "The attic" });
      await fetch("/api/instances", { method: "PUT", headers, body });
    });
    await told;
    goOn();
    await bob.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
    equal(await bob.getByRole("heading", { name: "The attic" }).count(), 1, "the new instances");
    await bob.unrouteAll({ behavior: "wait" });
  },

  async "after a restart of the server both are back"() {
    await bob.goto(link);
    await Promise.all([inside(ann, 2, 2), inside(bob, 2, 2)]);
    serverIsAway = true;
    await server.kill();
    await Promise.all([ann, bob].map((page) => page.getByText("Coming back …").waitFor()));
    await server.run();
    for (const page of [ann, bob]) await page.getByText("Coming back …").waitFor({ state: "detached" });
    serverIsAway = false;
    await Promise.all([inside(ann, 2, 2), inside(bob, 2, 2)]);
    await say(bob, "Here again");
    await heard(ann, "Bob", "Here again");
  },

  async "two tabs refresh at once, with one request"() {
    const context = ann.context();
    const tabs = [ann, await tab(context)];
    await button(ann, "Leave").click();
    await Promise.all(tabs.map((page) => page.goto(`${server.url}/`)));
    for (const page of tabs) await page.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
    // A page that is still there would learn of the change, and begin before it is loaded again.
    await tabs[1].goto("about:blank");
    let refreshes = 0;
    for (const page of tabs) {
      page.on("request", (request) => (refreshes += request.url().endsWith("/auth/refresh") ? 1 : 0));
    }
    const token = () => ann.evaluate(() => JSON.parse(Object.values(localStorage)[0]).token);
    const before = await token();
    await ann.evaluate(() => {
      const [[key, text]] = Object.entries(localStorage);
      const soon = Date.now() + 1_000;
      localStorage.setItem(key, JSON.stringify({ ...JSON.parse(text), token_until: soon, refresh_until: soon }));
    });
    await Promise.all(tabs.map((page) => page.goto(`${server.url}/?again`)));
    await untilOther(token, before);
    for (const page of tabs) await page.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
    equal(refreshes, 1, "requests");
    await tabs[1].close();
  },

  async "all of it works with the keyboard alone"() {
    const dot = await person();
    const { keyboard } = dot;
    await dot.goto(server.url);
    await field(dot, "Username").waitFor();
    /** Goes on to what has that name, and checks that one sees where one is. */
    async function to(name) {
      for (let steps = 0; steps < 40; steps++) {
        await keyboard.press("Tab");
        const now = await dot.evaluate(() => {
          const one = document.activeElement;
          const label = one.labels?.[0]?.textContent ?? one.getAttribute("aria-label") ?? one.textContent;
          return { label, outline: getComputedStyle(one).outlineStyle };
        });
        if (!now.label.startsWith(name)) continue;
        equal(now.outline, "solid", `the outline of ${name}`);
        return;
      }
      throw new Error(`Tab does not lead to ${name}`);
    }
    await to("Username");
    await keyboard.type("dot");
    await to("Password");
    await keyboard.type(PASSWORD);
    await keyboard.press("Enter");
    await dot.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
    await to("Make a world");
    await keyboard.press("Enter");
    equal(await dot.evaluate(() => document.activeElement.name), "title", "the focus in the dialog");
    await to("Make it and go in");
    await keyboard.press("Enter");
    await inside(dot, 1, 16);
    equal(await dot.evaluate(() => document.activeElement.tagName), "CANVAS", "the focus");
    await keyboard.press("Enter");
    await keyboard.type("Anybody there?");
    await keyboard.press("Enter");
    await heard(dot, "dot", "Anybody there?");
    await keyboard.press("Escape");
    equal(await dot.evaluate(() => document.activeElement.tagName), "CANVAS", "the focus after Escape");
    await to("Leave");
    await keyboard.press("Enter");
    await dot.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
    await check(dot, "the lists");
  },

  async "in a headset, head and hands are seen, and the window comes back"() {
    const eve = await person();
    // A headset that a script moves, in the place of the browser's WebXR.
    await eve.addInitScript(iwer);
    await eve.addInitScript(() => {
      window.headset = new IWER.XRDevice(IWER.metaQuest3);
      window.headset.installRuntime({ forceInstall: true });
    });
    const poses = [];
    eve.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
      const { command, key, data } = JSON.parse(payload);
      if (command === "instance-data" && key === "pose") poses.push(data);
    }));
    const pose = async (like, what) => {
      for (const begun = Date.now(); ; ) {
        const found = poses.find(like);
        if (found) return found;
        if (Date.now() - begun > PATIENCE_MS) throw new Error(`no pose ${what}: ${JSON.stringify(poses.at(-1))}`);
        await new Promise((next) => setTimeout(next, 50));
      }
    };
    await eve.goto(server.url);
    await register(eve, "eve", "Eve");
    await button(eve, "Make a world").click();
    await button(eve, "Make it and go in").click();
    await inside(eve, 1, 16);
    await eve.evaluate(() => {
      const { headset } = window;
      headset.position.set(0, 1.7, 0);
      headset.controllers.left.connected = false; // the right one comes first
      headset.controllers.left.position.set(-0.3, 1.1, -0.2);
      headset.controllers.right.position.set(0.3, 1.3, -0.4);
    });
    await button(eve, "Enter VR").click();
    await pose(({ right }) => right, "with the right hand");
    await eve.evaluate(() => (window.headset.controllers.left.connected = true));
    const near = (one, other) => Math.abs(one - other) < 0.02;
    const still = await pose(({ head, left, right }) => near(head, 1.7) && left && right, "with both hands");
    equal(near(still.left[1], 1.1) && near(still.right[1], 1.3), true, `the hands at ${JSON.stringify(still)}`);
    await eve.evaluate(() => window.headset.position.set(0, 1.2, 0));
    await pose(({ head }) => near(head, 1.2), "of the lower head");
    poses.length = 0;
    await eve.evaluate(() => window.headset.activeSession.end());
    await eve.locator("canvas").focus();
    await eve.keyboard.down("KeyW");
    await pose(({ left, right }) => !left && !right, "without hands");
    await eve.keyboard.up("KeyW");
    await button(eve, "Enter VR").waitFor();
    await eve.context().close();
  },

  async "a guest looks around with one click, and keeps the account"() {
    const gus = await person();
    await gus.goto(link);
    await button(gus, "Look around as a guest").click();
    await inside(gus, 2, 2);
    await button(gus, "Leave").click();
    await button(gus, "Keep this account").click();
    equal(await button(gus, "Make a world").count(), 0, "ways to make a world");
    await field(gus, "Username").fill("gus");
    await field(gus, "Password").fill(PASSWORD);
    await check(gus, "the dialog to keep the account");
    await button(gus, "Keep it").click();
    await button(gus, "Make a world").waitFor();
    await gus.context().close();
  },

  async "the lines of the SDK's README work as printed"() {
    const sdk = new URL("../../clients/js/", import.meta.url);
    const [, code] = /```js\n(.*?)```/s.exec(await readFile(new URL("README.md", sdk), "utf8"));
    const site = await developersSite(sdk, code.replace("http://127.0.0.1:3032", server.url));
    const page = await person();
    const said = [];
    const ended = new Promise((resolve) => {
      page.on("pageerror", (error) => resolve(said.push(String(error))));
      page.on("console", (message) => message.type() === "log" && resolve(said.push(message.text())));
    });
    await page.goto(site.url);
    await Promise.race([ended, page.waitForTimeout(PATIENCE_MS)]);
    equal(said.join("\n"), "players: ann_example", "what the lines print");
    await page.context().close();
    site.close();
  },
};

await play(scenes, { ann, bob });
