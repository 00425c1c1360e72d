/** What the module's own memory holds on the gpu device: weights pass it by. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./packs.js";
import { expect, load, test } from "./site.js";

const MIB = 1 << 20;

interface Heap {
  readonly start: number;
  readonly streamed: number;
  now(): number;
}

test.skip(
  !existsSync(join(ROOT, "dist", "models", "groma-s", "model.json")),
  "npm run build makes the model",
);

test("weights go past the wasm heap", async ({ page, site }) => {
  await page.goto(site.page({ model: "models/groma-s/", device: "gpu" }));
  await load(page);
  await expect(page.getByRole("textbox", { name: "Ask" })).toBeEnabled({ timeout: 240_000 });
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
  const growth = heap.streamed - heap.start;
  console.log(
    `    heap: ${(growth / MIB).toFixed(1)} MiB more while weights streamed, ${(heap.now / MIB).toFixed(1)} MiB in all`,
  );
  expect(heap.streamed).toBeGreaterThan(0);
  expect(growth).toBeLessThanOrEqual(16 * MIB);
  expect(heap.now).toBeLessThanOrEqual(96 * MIB);
});
