// Takes the pictures of README and of the documentation: node pictures.mjs CHROMIUM FOLDER.
//
// It starts a server (REILETA_COMMAND, as JSON), lets Ann, Bob and Cem meet in a headless Chromium, and
// takes what Cem and an admin see, in light and dark, wide and narrow. Needs `build_pages.py --checks`.
import { execFile } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

import { Server } from "../js/tests/server.mjs";

const [executablePath = "/usr/bin/chromium", folder = "../../docs/pictures"] = process.argv.slice(2);
const [program, ...before] = JSON.parse(process.env.REILETA_COMMAND ?? '["reileta"]');
const PASSWORD = "correct horse";
const PATIENCE_MS = 120_000;

const server = await Server.start("--rate-limits", "off");
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-background-networking", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});

async function visitor(width, height, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, deviceScaleFactor: 1 });
  context.setDefaultTimeout(PATIENCE_MS);
  return context.newPage();
}

async function register(page, username, displayname) {
  await page.getByLabel("Username", { exact: true }).fill(username);
  await page.getByLabel("Shown name (optional)").fill(displayname);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Register and go on" }).click();
}

/** Lets people without a page of their own in, who stand before the visitor and look at each other. */
function company(page, instance, people) {
  return page.evaluate(async ([id, people, password]) => {
    const register = async (account) => (await (await fetch("/api/auth/register", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(account),
    })).json()).data;
    const opened = (token) => new Promise((open) => {
      const socket = new WebSocket(`${location.origin.replace("http", "ws")}/api/ws?authuser=${token}`);
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.command === "authenticated") socket.send(JSON.stringify({ state: 1, command: "instance-join", data: { instance: id } }));
        if (message.state === 1) open([socket, message.data]);
      };
    });
    window.company = [];
    for (const { username, displayname, ahead, aside, turn, hands } of people) {
      const account = await register({ username, displayname, password });
      const [socket, { retained }] = await opened(account.token);
      window.company.push(socket);
      window.eye ??= retained.find(({ key }) => key === "pose").data;
      const { x, z, yaw } = window.eye;
      const place = {
        x: x - Math.sin(yaw) * ahead + Math.cos(yaw) * aside, y: 0, z: z - Math.cos(yaw) * ahead - Math.sin(yaw) * aside,
        yaw: yaw + turn, pitch: 0, head: 1.6,
      };
      // Hands are given as they are seen from the body.
      const [sin, cos] = [Math.sin(place.yaw), Math.cos(place.yaw)];
      const hand = ([right, up, front]) => [cos * right - sin * front, up, -sin * right - cos * front];
      const data = { ...place, left: hand(hands[0]), right: hand(hands[1]) };
      socket.send(JSON.stringify({ command: "instance-data", subgroup: id, key: "pose", at: 1, data }));
    }
    window.say = (index, text) => window.company[index].send(JSON.stringify({ command: "instance-data", subgroup: id, data: { say: text } }));
  }, [instance, people, PASSWORD]);
}

const shot = (page, name) => page.screenshot({ path: path.join(folder, `${name}.png`), animations: "disabled" });

try {
  await mkdir(folder, { recursive: true });
  const cem = await visitor(960, 600, "light");
  await cem.goto(server.url);
  await register(cem, "cem", "Cem");
  await cem.getByRole("button", { name: "Make it and go in" }).click();
  await cem.getByText("1 of 32 here").waitFor();
  await cem.getByText("Drawing the room …").waitFor({ state: "detached" });
  const instance = decodeURIComponent(cem.url().split("/").at(-1));
  await company(cem, instance, [
    { username: "ann", displayname: "Ann", ahead: 4, aside: -0.25, turn: -2.2, hands: [[-0.38, 1.12, 0.12], [0.42, 1.62, 0.1]] },
    { username: "bob", displayname: "Bob", ahead: 3.3, aside: 1.3, turn: 2.25, hands: [[-0.36, 0.86, 0.06], [0.34, 0.9, 0.1]] },
  ]);
  await cem.getByText("3 of 32 here").waitFor();
  await cem.evaluate(() => window.say(0, "Hello Bob"));
  await cem.evaluate(() => window.say(1, "Hello Ann"));
  await cem.getByText("Bob: Hello Ann").waitFor();
  await cem.waitForTimeout(1_500); // the bubbles are drawn, and the resolution settles
  await shot(cem, "client");

  const data = path.join(server.folder, "data");
  const phone = await visitor(390, 780, "dark");
  await phone.goto(server.url);
  await shot(phone, "enter-phone-dark");
  await register(phone, "root", "Root");
  await phone.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
  await phone.waitForTimeout(1_000);
  await shot(phone, "lists-phone-dark");
  await promisify(execFile)(program, [...before, "admin", "grant", "--data", data, "root"]);
  for (const [name, width, height, colorScheme] of [["console", 960, 600, "light"], ["console-phone-dark", 390, 780, "dark"]]) {
    const admin = await visitor(width, height, colorScheme);
    await admin.goto(`${server.url}/console`);
    await admin.getByLabel("Username").fill("root");
    await admin.getByLabel("Password").fill(PASSWORD);
    for (;;) {
      await admin.keyboard.press("Enter");
      const inside = admin.getByRole("heading", { name: "Overview", exact: true });
      if (await inside.waitFor({ timeout: 5_000 }).then(() => true, () => false)) break;
    }
    await admin.getByText("Ready").waitFor();
    await admin.waitForTimeout(12_000); // charts need some samples
    await shot(admin, name);
    await admin.goto(`${server.url}/console#/instance/${instance}`);
    await admin.getByRole("heading", { name: "A meadow" }).waitFor();
    await admin.waitForTimeout(3_000); // rates need two looks
    await shot(admin, name.replace("console", "console-instance"));
  }
  await cem.emulateMedia({ colorScheme: "dark" });
  await cem.getByRole("button", { name: "Leave" }).click();
  await cem.getByRole("heading", { name: "Worlds", exact: true }).waitFor();
  await cem.waitForTimeout(1_000);
  await shot(cem, "lists-dark");

  const both = await visitor(1500, 464, "light");
  const image = async (name) => `data:image/png;base64,${(await readFile(path.join(folder, `${name}.png`))).toString("base64")}`;
  await both.setContent(`<style>
    body { margin: 0; display: flex; gap: 16px; background: #fff; }
    img { height: 464px; border: 1px solid #d5d8e2; border-radius: 10px; box-sizing: border-box; }
  </style><img src="${await image("client")}"><img src="${await image("console-instance")}">`);
  await shot(both, "reileta");
} finally {
  await browser.close();
  await server.stop();
}
