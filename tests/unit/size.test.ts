import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { pageSizes } from "../../scripts/size.mjs";

const dist = join(import.meta.dirname, "..", "..", "dist");
const LIMIT = 2.5 * 2 ** 20;

// `npm test` builds the page before it runs this.
test.skipIf(!existsSync(join(dist, "index.html")))(
  "the page is small enough to wait for",
  { timeout: 120_000 },
  async () => {
    const files = await pageSizes(dist);
    const sum = files.reduce((bytes, { brotli }) => bytes + brotli, 0);
    console.log(`page: ${(sum / 2 ** 20).toFixed(3)} MiB by brotli, ${files[0]?.path ?? ""} the largest`);
    expect(files.some(({ path }) => path.endsWith(".wasm"))).toBe(true);
    expect(sum).toBeLessThanOrEqual(LIMIT);
  },
);
