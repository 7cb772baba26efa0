// The scenes of test_console.py: an admin sees and steers a real server. scenes.mjs says how they are
// played. The third argument is the command that makes an admin, as JSON.
import { execFileSync } from "node:child_process";

import * as stage from "./scenes.mjs";
import { PASSWORD, PATIENCE_MS, play, server } from "./scenes.mjs";

const [grant] = process.argv.slice(4);

async function call(method, path, token, body) {
  const answer = await fetch(server.url + path, {
    method,
    headers: { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return (await answer.json()).data;
}

/** A player with a socket, and what it got. */
class Player {
  got = [];
  waiting = [];

  static async join(username, instance) {
    const player = new Player();
    const login = await call("POST", "/api/auth/register", null, { username, password: PASSWORD });
    player.token = login.token;
    player.socket = new WebSocket(`${server.url.replace("http", "ws")}/api/ws?authuser=${login.token}`);
    player.socket.onmessage = ({ data }) => player.take(JSON.parse(data));
    if (instance) await player.ask("instance-join", { instance: await instance(player) });
    return player;
  }

  take(message) {
    this.got.push(message);
    for (const look of this.waiting) look();
  }

  /** The first message that is like that. */
  until(like) {
    return new Promise((found, lost) => {
      const timer = setTimeout(() => lost(new Error(`no such message: ${like}`)), PATIENCE_MS);
      const look = () => {
        const one = this.got.find(like);
        if (one === undefined) return;
        clearTimeout(timer);
        found(one);
      };
      this.waiting.push(look);
      look();
    });
  }

  async ask(command, data) {
    await this.until((one) => one.command === "authenticated");
    this.socket.send(JSON.stringify({ state: command, command, data }));
    return this.until((one) => one.state === command);
  }

  say(data) {
    this.socket.send(JSON.stringify({ command: "instance-data", subgroup: room, data }));
  }
}

let room;
const ann = await Player.join("ann", async ({ token }) => {
  const world = await call("PUT", "/api/worlds", token, { title: "A meadow" });
  ({ id: room } = await call("PUT", "/api/instances", token, { world: world.id, title: "Picnic", capacity: 3 }));
  return room;
});
const bob = await Player.join("bob", () => room);
await call("POST", "/api/auth/register", null, { username: "root", password: PASSWORD });
const [program, ...words] = JSON.parse(grant);
execFileSync(program, [...words, "root"], { stdio: ["ignore", "ignore", "inherit"] });

const page = await stage.person({ viewport: { width: 1200, height: 800 }, reducedMotion: "reduce" });
const button = (name) => page.getByRole("button", { name, exact: true });
const heading = (name) => page.getByRole("heading", { name, exact: true });

/** The page is judged wide and narrow, light and dark. */
async function check(what) {
  for (const [width, colorScheme] of [[1200, "light"], [390, "dark"]]) {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme });
    await stage.check(page, `${what}, ${width} px`);
  }
  await page.setViewportSize({ width: 1200, height: 800 });
}

const scenes = {
  async "only admins come in"() {
    await page.goto(`${server.url}/console`);
    await page.getByLabel("Username").fill("ann");
    await page.getByLabel("Password").fill(PASSWORD);
    await page.keyboard.press("Enter");
    await page.getByText("This account is not an admin of the server.").waitFor();
    await check("the login");
  },

  async "the overview has the node and its figures"() {
    // The grant acts within a moment: log in until it has.
    await page.getByLabel("Username").fill("root");
    for (const begun = Date.now(); ; ) {
      await page.keyboard.press("Enter");
      const seen = heading("Overview").waitFor({ timeout: 5000 }).then(() => true, () => false);
      if (await seen) break;
      if (Date.now() - begun > PATIENCE_MS) throw new Error("root does not become an admin");
    }
    await page.getByText("Ready").waitFor();
    await page.getByRole("img", { name: /^Players, last 15 minutes: now 2,/ }).waitFor();
    await check("the overview");
  },

  async "the instances are live, and one is found with the keyboard alone"() {
    await page.getByRole("link", { name: "Instances" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("cell", { name: "2 / 3" }).waitFor();
    await check("the instances");
    await page.getByRole("link", { name: "Picnic" }).focus();
    await page.keyboard.press("Enter");
    await heading("Players (2)").waitFor();
    await page.getByRole("row", { name: /ann .* owner .* ms/ }).waitFor();
    await check("an instance");
  },

  async "a player is kicked with a reason, and is told it"() {
    await button("Kick bob").first().click();
    await page.getByLabel("Reason").fill("too loud");
    await check("the dialog");
    await page.getByRole("dialog").getByRole("button", { name: "Kick bob" }).click();
    const { data } = await bob.until((one) => one.command === "instance-left");
    if (data.reason !== "kicked") throw new Error(`bob was told ${JSON.stringify(data)}`);
    await heading("Players (1)").waitFor();
    await page.getByRole("listitem").filter({ hasText: "bob left" }).waitFor();
  },

  async "a crash is shown"() {
    ann.say("crash");
    await ann.until((one) => one.command === "instance-restored");
    await page.getByRole("link", { name: "Actors" }).click();
    const crash = page.getByText(/WantedCrash in instance\//);
    await crash.click();
    await page.getByText("as a test wants it", { exact: true }).waitFor();
    await check("the actors");
  },

  async "everyone is told something, and the log has it"() {
    await page.getByRole("link", { name: "Tell everyone" }).click();
    await page.getByLabel("Text", { exact: true }).fill("Restart in five minutes");
    await page.getByLabel(/For how many minutes/).fill("5");
    await check("the notice");
    await button("Tell everyone").click();
    const { data } = await ann.until((one) => one.command === "server-notice");
    if (data.text !== "Restart in five minutes") throw new Error(JSON.stringify(data));
    const lobby = await page.context().newPage();
    await lobby.goto(`${server.url}/`);
    await lobby.getByText("Restart in five minutes").waitFor();
    await lobby.getByRole("button", { name: "Hide" }).click();
    await lobby.getByText("Restart in five minutes").waitFor({ state: "detached" });
    await lobby.close();
    await page.getByRole("link", { name: "Audit log" }).click();
    await page.getByRole("row", { name: /root set_notice/ }).waitFor();
    await check("the audit log");
    const titles = { People: "People", Resources: "Held resources", Servers: "Other servers", Traces: "Slowest traces" };
    for (const [name, title] of Object.entries(titles)) {
      await page.getByRole("link", { name, exact: true }).click();
      await heading(title).waitFor();
      await check(name);
    }
  },

  async "an instance is closed"() {
    await page.goto(`${server.url}/console#/instance/${room}`);
    await button("Close the instance").click();
    await page.getByRole("dialog").getByRole("button", { name: "Close the instance" }).click();
    await ann.until((one) => one.command === "instance-left" && one.data.reason === "closed");
    await page.getByText("No instance runs now.").waitFor();
  },

  async "the endpoints are searched, and one is tried with the login of this browser"() {
    await page.goto(`${server.url}/docs`);
    // Of a list this long, Swagger UI keeps only what is near the window in the document.
    const first = page.locator("#operations-server-get_server");
    await first.waitFor();
    await check("the endpoints");
    await page.getByLabel("Search the endpoints").fill("GET user /api/users/{ref}");
    await first.waitFor({ state: "detached" });
    const one = page.locator("#operations-users-get_user");
    await one.locator(".opblock-summary-control").click();
    await one.getByRole("button", { name: "Try it out" }).click();
    await one.getByPlaceholder("ref").fill("@me");
    await one.getByRole("button", { name: "Execute" }).click();
    await one.locator(".live-responses-table", { hasText: '"username": "root"' }).waitFor();
    await check("an endpoint and its answer");
    await button("Authorize").click();
    await page.getByRole("dialog", { name: "Tokens" }).waitFor();
    await check("the tokens");
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).first().click();
  },

  async "commands are searched, and one is tried on a socket"() {
    await page.goto(`${server.url}/docs/plain`);
    await check("the plain page");
    await page.goto(`${server.url}/docs/sockets`);
    await page.getByLabel("Search commands and events").fill("command subscribe");
    await page.locator("#receiveSubscribe summary").click();
    await page.locator("#receiveSubscribe").getByRole("button", { name: "Put into" }).click();
    await button("Connect").click();
    await page.getByRole("log").getByText('"command":"authenticated"').waitFor();
    await button("Send").click();
    await page.getByRole("log").getByText('{"state":1,"command":"subscribe"').waitFor();
    await check("the sockets");
  },
};

try {
  await play(scenes, { console: page });
} finally {
  for (const one of [ann, bob]) one.socket.close();
}
