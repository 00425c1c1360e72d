// `npm run bench`: what the built page costs on this machine, in the form of `groma bench --json`. Timings only: counters
// are the command line's.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root, say, sha256 } from "./lib.mjs";
import { serve } from "./serve.mjs";

const RUNS = Number(process.env.RUNS ?? 3);
const PHOTO = join(root, "dist", "samples", "astronaut.png");
const system = process.env.CHROMIUM ?? "/usr/bin/chromium";
const device = process.argv.includes("--gpu") ? "gpu" : "cpu";

const { chromium } = await import("@playwright/test");
const { url, close } = await serve();
const browser = await chromium.launch({
  ...(existsSync(system) ? { executablePath: system } : {}),
  args: [
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    ...(process.argv.includes("--software") ? ["--use-webgpu-adapter=swiftshader"] : []),
  ],
});
const page = await browser.newPage();

/** Waits for an event of the element and gives what `pick` takes of it. */
function next(name) {
  return page.evaluate(
    (event) =>
      new Promise((done, fail) => {
        const chat = document.querySelector("groma-chat");
        chat.addEventListener(event, ({ detail }) => done(JSON.parse(JSON.stringify(detail))), {
          once: true,
        });
        chat.addEventListener("groma-error", ({ detail }) => fail(new Error(detail.error.message)), {
          once: true,
        });
      }),
    name,
  );
}

const timings = [];
let info;
let second;
try {
  await page.goto(`${url}?device=${device}`);
  const ready = next("groma-ready");
  await page.getByRole("button", { name: /^(Load|Start)/ }).click({ timeout: 30_000 });
  info = await ready;
  for (let at = 0; at < RUNS; at++) {
    say(`run ${at + 1} of ${RUNS} …`);
    const regions = next("groma-regions");
    await page.locator("input[type=file]").setInputFiles(PHOTO);
    await regions;
    const answer = next("groma-answer");
    await page.getByRole("button", { name: "Describe this photo" }).click();
    timings.push((await answer).result);
  }
  const answer = next("groma-answer");
  await page.getByRole("textbox", { name: "Ask" }).fill("What else is there?");
  await page.keyboard.press("Enter");
  ({ timing: second } = (await answer).result);
} finally {
  await browser.close();
  close();
}

const model = join(root, "dist", "models", info.model, "model.json");
const stage = (name, pick) => {
  const ms = timings.map(pick).sort((a, b) => a - b);
  return { name, ms: { median: ms[ms.length >> 1], min: ms[0], runs: ms.length } };
};
const result = {
  schema: 1,
  commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root }).toString().trim(),
  pack: {
    name: info.model,
    sha256: existsSync(model) ? await sha256(model) : null,
    quantisation: existsSync(model)
      ? JSON.parse(await readFile(model, "utf8")).quantisation
      : info.quantisation,
  },
  device: { kind: info.device, name: info.adapter, type: "browser", limits: {} },
  stages: [
    stage("vision", ({ timing }) => timing.vision_ms),
    stage("prefill", ({ timing }) => timing.prefill_ms),
    stage("decode a token", ({ timing, tokens }) => timing.decode_ms / Math.max(1, tokens.length)),
  ],
  decode: { tokens: timings[0].tokens.length },
  second_question: { prompt: second.prompt, reused: second.reused, prefilled: second.prefilled },
};
process.stdout.write(`${JSON.stringify(result, undefined, 1)}\n`);
