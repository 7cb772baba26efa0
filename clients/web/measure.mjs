// Measures the scene with many avatars: frames a second, and what blocks the page's main thread.
//
//   node measure.mjs CHROMIUM [PLAYERS] [SECONDS]
//
// It starts a server (REILETA_COMMAND, as JSON) and a headless Chromium that draws in software at
// 640 × 360. The players walk in circles: each sends 20 poses a second, and reads what it gets. Needs
// `build_pages.py --checks`.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

import { Server } from "../js/tests/server.mjs";

const [executablePath = "/usr/bin/chromium", players = "60", seconds = "10"] = process.argv.slice(2);
const [program, ...before] = JSON.parse(process.env.REILETA_COMMAND ?? '["reileta"]');
const PER_SECOND = 20;

/** A text message of a client, as RFC 6455 has it. */
function frame(message) {
  const body = Buffer.from(JSON.stringify(message));
  const mask = randomBytes(4);
  const head = body.length < 126 ? Buffer.from([0x81, 0x80 | body.length]) : Buffer.from([0x81, 0xfe, body.length >> 8, body.length & 255]);
  return Buffer.concat([head, mask, body.map((byte, index) => byte ^ mask[index % 4])]);
}

/** A player that walks in a circle. It looks at nothing that it gets. */
function walk(server, token, instance, index) {
  const socket = net.connect(server.port, "127.0.0.1");
  socket.setNoDelay(true);
  socket.on("data", () => {});
  socket.on("error", () => {});
  const key = randomBytes(16).toString("base64");
  socket.write(
    `GET /api/ws?authuser=${token} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nUpgrade: websocket\r\n` +
      `Connection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
  );
  let step = 0;
  let timer;
  socket.once("data", () => {
    socket.write(frame({ command: "instance-join", data: { instance } }));
    timer = setInterval(() => {
      const angle = index * 2.4 + step++ * 0.04;
      const far = 2 + (index % 9) * 0.8;
      const data = { x: Math.sin(angle) * far, y: 0, z: Math.cos(angle) * far, yaw: angle + Math.PI / 2, pitch: 0, head: 1.6 };
      socket.write(frame({ command: "instance-data", subgroup: instance, key: "pose", at: step, data }));
    }, 1000 / PER_SECOND);
  });
  return () => {
    clearInterval(timer);
    socket.destroy();
  };
}

/** The processor time of the page's longest task during some work, in ms. On a busy machine a task may
 * take much longer than that, because the page gets no processor. */
async function longestTask(browser, page, work) {
  await browser.startTracing(page, { categories: ["-*", "toplevel", "__metadata"] });
  await work();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const thread = ({ pid, tid }) => `${pid}/${tid}`;
  const mains = new Set(traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(thread));
  const tasks = traceEvents.filter((event) => event.name.endsWith("RunTask") && mains.has(thread(event)));
  return Math.round(Math.max(0, ...tasks.map(({ tdur = 0 }) => tdur)) / 100) / 10;
}

const server = await Server.start("--rate-limits", "off");
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-background-networking", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});
const ends = [];
try {
  const file = path.join(server.folder, "tokens.txt");
  await promisify(execFile)(program, [
    ...before, "bots", "create", "--count", players, "--tokens", file, "--data", path.join(server.folder, "data"),
  ]);
  const tokens = (await readFile(file, "utf8")).split("\n").map((line) => line.split(/\s/).at(-1)).filter(Boolean);
  const page = await (await browser.newContext({ viewport: { width: 640, height: 360 } })).newPage();
  await page.goto(server.url);
  await page.getByLabel("Username").fill("watcher");
  await page.getByLabel("Password").fill("correct horse");
  await page.getByRole("button", { name: "Register" }).click();
  await page.getByRole("button", { name: "Make it and go in" }).click();
  await page.getByText("1 of 32 here").waitFor({ timeout: 60_000 });
  const instance = decodeURIComponent(page.url().split("/").at(-1));
  await page.evaluate(async ([id, many]) => {
    const { token } = JSON.parse(Object.values(localStorage)[0]);
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    await fetch(`/api/instances/${id}`, { method: "POST", headers, body: JSON.stringify({ capacity: many + 4 }) });
  }, [instance, Number(players)]);
  const joining = await longestTask(browser, page, async () => {
    for (const [index, token] of tokens.entries()) ends.push(walk(server, token, instance, index));
    await page.getByText(`${tokens.length + 1} of`).waitFor({ timeout: 60_000 });
    await page.waitForTimeout(3_000); // the resolution settles
  });
  const devtools = await page.context().newCDPSession(page);
  const whole = await browser.newBrowserCDPSession();
  await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
  /** Seconds of processor time so far: the page's main thread, and the process that draws. */
  async function used() {
    const { metrics } = await devtools.send("Performance.getMetrics");
    const { processInfo } = await whole.send("SystemInfo.getProcessInfo");
    const gpu = processInfo.filter(({ type }) => type === "GPU").reduce((sum, { cpuTime }) => sum + cpuTime, 0);
    return { main: metrics.find(({ name }) => name === "TaskDuration").value, gpu };
  }
  const usedBefore = await used();
  const measured = await page.evaluate(async (ms) => {
    const tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((one) => one.duration))).observe({ entryTypes: ["longtask"] });
    let frames = 0;
    const begun = performance.now();
    await new Promise((done) => {
      const count = () => {
        frames++;
        if (performance.now() - begun < ms) requestAnimationFrame(count);
        else done();
      };
      requestAnimationFrame(count);
    });
    const canvas = document.querySelector("canvas");
    return {
      frames,
      frames_per_s: Math.round((frames / (performance.now() - begun)) * 10_000) / 10,
      drawn: `${canvas.width} × ${canvas.height}`,
      tasks_over_50_ms: tasks.length,
      longest_task_ms: Math.round(Math.max(0, ...tasks)),
    };
  }, Number(seconds) * 1000);
  const usedAfter = await used();
  const { frames, ...rest } = measured;
  const main_thread_ms_per_s = Math.round(((usedAfter.main - usedBefore.main) / Number(seconds)) * 1000);
  const drawing_ms_per_frame = Math.round(((usedAfter.gpu - usedBefore.gpu) / frames) * 10_000) / 10;
  const walking = await longestTask(browser, page, () => page.waitForTimeout(5_000));
  const longest_task_cpu_ms = { joining, walking };
  if (process.env.PICTURE) await page.screenshot({ path: process.env.PICTURE });
  console.log(JSON.stringify({ players: tokens.length, ...rest, longest_task_cpu_ms, main_thread_ms_per_s, drawing_ms_per_frame }));
} finally {
  for (const end of ends) end();
  await browser.close();
  await server.stop();
}
