/** What the page's own thread does while the engine works: nothing that is felt. */

import { openApi } from "./api-page.js";
import { expect, test } from "./site.js";

test.beforeEach(({ page, site }) => openApi(page, site));

/** A photo as cameras make them: 12 megapixels. */
const [WIDTH, HEIGHT] = [4000, 3000];

for (const kind of ["file", "bitmap", "pixels"] as const) {
  test(`no task of the page is long while a ${kind} is looked at and asked about`, async ({ page }) => {
    const long = await page.evaluate(
      async ({ wanted, width, height }) => {
        const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        if (!context) throw new Error("no canvas");
        context.fillStyle = "teal";
        context.fillRect(0, 0, width / 2, height);
        const file = await canvas.convertToBlob({ type: "image/jpeg" });
        const source =
          wanted === "file"
            ? file
            : wanted === "bitmap"
              ? await createImageBitmap(file)
              : context.getImageData(0, 0, width, height);
        // What was done until here is the test's.
        await new Promise((done) => setTimeout(done, 200));
        const seen: number[] = [];
        const observer = new PerformanceObserver((list) =>
          seen.push(...list.getEntries().map(({ duration }) => duration)),
        );
        observer.observe({ type: "longtask" });
        const photo = await groma.open(source);
        await photo.describe({ maxTokens: 16 }).done;
        await groma.destroy();
        await new Promise((done) => setTimeout(done, 200));
        observer.disconnect();
        return seen;
      },
      { wanted: kind, width: WIDTH, height: HEIGHT },
    );
    console.log(
      `    ${kind}: ${long.length === 0 ? "none" : long.map((ms) => `${Math.round(ms)} ms`).join(", ")}`,
    );
    expect(long).toEqual([]);
  });
}
