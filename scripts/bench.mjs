// `npm run bench`: what the model costs in a browser on this machine: the object that `groma bench --json` prints.
// It wants what `npm run build` makes. --gpu measures WebGPU, --software forces its software adapter, --model another pack of
// dist/models, --side only the image encoder, for a picture of so many pixels; RUNS and TOKENS say how much.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root, say, sha256 } from "./lib.mjs";
import { serve } from "./serve.mjs";

const argument = (name) => process.argv.includes(`--${name}`);
const valueOf = (name) => process.argv[process.argv.indexOf(`--${name}`) + 1 || process.argv.length];
const model = valueOf("model") ?? "groma-s";
const side = valueOf("side") && Number(valueOf("side"));
const device = argument("gpu") || argument("software") ? "gpu" : "cpu";
const runs = Number(process.env.RUNS ?? 3);
const tokens = Number(process.env.TOKENS ?? 64);
const folder = join(root, "dist", "models", model);
const description = await readFile(join(folder, "model.json"), "utf8");

/** The page that measures is empty; the module is served beside it. */
async function hook(_, response, path) {
  const files = { "/bench/groma.js": "text/javascript", "/bench/groma_bg.wasm": "application/wasm" };
  if (path === "/bench/") {
    response
      .writeHead(200, { "content-type": "text/html" })
      .end("<!doctype html><title>bench</title><link rel=icon href=data:,>");
    return true;
  }
  if (!(path in files)) return false;
  const bytes = await readFile(join(root, "www", "pkg", path.slice("/bench/".length)));
  response.writeHead(200, { "content-type": files[path] }).end(bytes);
  return true;
}

/** Runs in the page: loads the pack into memory, then the model onto the device, and measures. */
async function measure({ description, folder, pack, device, runs, tokens, side }) {
  const { default: init, Model, Stop } = await import("/bench/groma.js");
  await init();
  const files = new Map();
  for (const { name, parts } of JSON.parse(description).files) {
    const all = [];
    for (const part of parts?.length ? parts : [{ name }]) {
      const response = await fetch(`${folder}${part.name}`);
      if (!response.ok) throw new Error(`${part.name}: HTTP ${response.status}`);
      all.push(await response.arrayBuffer());
    }
    files.set(name, new Uint8Array(await new Blob(all).arrayBuffer()));
  }
  const reader = { read: (file, offset, length) => files.get(file).subarray(offset, offset + length) };
  const stop = new Stop();
  try {
    const model = await Model.load(description, reader, device, { numerics: "fast" }, stop);
    const round = (done, all) => console.log(`round ${done + 1} of ${all} …`);
    return await model.bench(pack, runs, tokens, side, stop, round);
  } catch (error) {
    throw new Error(error.message ?? String(error), { cause: error });
  }
}

const { name, quantisation } = JSON.parse(description);
const pack = JSON.stringify({ name, sha256: await sha256(join(folder, "model.json")), quantisation });
const { chromium } = await import("@playwright/test");
const { url, close } = await serve({ hook });
const system = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launch({
  ...(existsSync(system) ? { executablePath: system } : {}),
  args: [
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    ...(argument("software") ? ["--use-webgpu-adapter=swiftshader"] : []),
  ],
});
try {
  const page = await browser.newPage();
  page.on("console", (message) => say(message.text()));
  await page.goto(`${url}bench/`);
  const wanted = { description, folder: `${url}models/${model}/`, pack, device, runs, tokens, side };
  const report = JSON.parse(await page.evaluate(measure, wanted));
  process.stdout.write(`${JSON.stringify(report, undefined, 1)}\n`);
} finally {
  await browser.close();
  close();
}
