/** What memory holds: weights pass the module's own by, and what photos and questions took comes back. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { seen, watchGpu } from "./gpu-watch.js";
import { Heaps } from "./heaps.js";
import { ROOT } from "./packs.js";
import { expect, load, test } from "./site.js";

const MIB = 1 << 20;

interface Heap {
  readonly start: number;
  readonly streamed: number;
  now(): number;
}

/** What the engine's worker tells of the module's memory. */
async function gromaHeap(page: Page): Promise<{ start: number; streamed: number; now: number }> {
  const heaps = await Promise.all(
    page.workers().map((worker) =>
      worker.evaluate(() => {
        const { gromaHeap } = self as unknown as { gromaHeap?: Heap };
        return gromaHeap && { start: gromaHeap.start, streamed: gromaHeap.streamed, now: gromaHeap.now() };
      }),
    ),
  );
  const heap = heaps.find((found) => found);
  if (!heap) throw new Error("no worker tells its memory");
  return heap;
}

test("weights go past the wasm heap", async ({ page, site }) => {
  const built = existsSync(join(ROOT, "dist", "models", "groma-s", "model.json"));
  test.skip(!built, "npm run build makes the model");
  await page.goto(site.page({ model: "models/groma-s/", device: "gpu" }));
  await load(page);
  await expect(page.getByRole("textbox", { name: "Ask" })).toBeEnabled({ timeout: 240_000 });
  const heap = await gromaHeap(page);
  const growth = heap.streamed - heap.start;
  console.log(
    `    heap: ${(growth / MIB).toFixed(1)} MiB more while weights streamed, ${(heap.now / MIB).toFixed(1)} MiB in all`,
  );
  expect(heap.streamed).toBeGreaterThan(0);
  expect(growth).toBeLessThanOrEqual(16 * MIB);
  expect(heap.now).toBeLessThanOrEqual(96 * MIB);
});

/** Opens a photo of its own look and size, and asks five questions about it. */
function talk(page: Page, at: number): Promise<number[]> {
  return page.evaluate(async (n) => {
    const chat = document.querySelector("groma-chat");
    if (!chat) throw new Error("no element");
    chat.maxTokens = 6;
    const canvas = new OffscreenCanvas(300 + 17 * n, 320 - 13 * n);
    const context = canvas.getContext("2d");
    for (let k = 0; k < 60 && context; k++) {
      context.fillStyle = `hsl(${37 * k + 50 * n} 70% 50%)`;
      context.fillRect((53 * k * (n + 1)) % canvas.width, (31 * k) % canvas.height, 40, 30 + n);
    }
    await chat.open(await canvas.convertToBlob(), `photo ${n}`);
    const tokens: number[] = [];
    for (const question of ["What is this?", "What colour is it?", "Who?", "Where is the red one?", "And?"]) {
      tokens.push((await chat.ask(question))?.tokens.length ?? 0);
    }
    return tokens;
  }, at);
}

for (const device of ["cpu", "gpu"] as const) {
  test(`fifty questions over ten photos leave nothing behind on the ${device}`, async ({ page, site }) => {
    if (device === "gpu") await watchGpu(page);
    const heaps = await Heaps.of(page);
    // The heaps last: what Playwright needs to look into the worker is there then, each time.
    const held = async () => ({
      wasm: (await gromaHeap(page)).now,
      gpu: device === "gpu" ? (await seen(page)).bytes : 0,
      page: await heaps.page(),
      worker: await heaps.worker(),
    });
    await page.goto(site.page({ device }));
    await load(page);
    await expect(page.getByRole("textbox", { name: "Ask" })).toBeEnabled();
    for (const count of await talk(page, 0)) expect(count).toBeGreaterThan(0);
    const first = await held();
    // Back at the first photo in the end, so that there are as many regions to hold as before.
    const round = async () => {
      for (let at = 1; at <= 10; at++) await talk(page, at % 10);
      return held();
    };
    const last = await round();
    const kib = (bytes: number) => `${Math.round(bytes / 1024)} KiB`;
    console.log(
      `    gpu ${kib(last.gpu)}, wasm ${kib(last.wasm)}; more than after the first photo: page ${kib(last.page.bytes - first.page.bytes)} and ${last.page.objects - first.page.objects} objects, worker ${kib(last.worker.bytes - first.worker.bytes)} and ${last.worker.objects - first.worker.objects}`,
    );
    expect(last.gpu).toBe(first.gpu);
    // The module's memory never shrinks, and one photo's buffers may not fit the gaps that another's left: once it may
    // grow by a step of the allocator's, and never again.
    expect(last.wasm).toBeLessThan(first.wasm + MIB);
    if (device === "cpu") expect((await round()).wasm).toBe(last.wasm);
    // Fewer than one a question. On the page fewer than three: literals of functions that became warm count too, and the
    // lines that are kept for a screen reader were not all there after the first photo.
    expect(last.worker.objects).toBeLessThan(first.worker.objects + 50);
    expect(last.page.objects).toBeLessThan(first.page.objects + 150);
    expect(last.page.nodes).toBeLessThan(first.page.nodes + 25);
    // Code that became warm, of which there is an end.
    expect(last.page.bytes).toBeLessThan(first.page.bytes + MIB / 2);
    expect(last.worker.bytes).toBeLessThan(first.worker.bytes + MIB / 4);
  });
}
