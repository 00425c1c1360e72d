/** The JavaScript API over the real engine with a tiny model, as a page of someone else's uses it: the package's own file. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { openApi, type Api } from "./api-page.js";
import { makePacks, PACKS, ROOT } from "./packs.js";
import { expect, kept, test } from "./site.js";

declare global {
  interface Window {
    /** How often persistent storage was asked for. */
    asked: number;
  }
}

interface Description {
  readonly total: number;
  readonly files: readonly { readonly parts: readonly { readonly name: string; readonly size: number }[] }[];
}

makePacks();
const description = JSON.parse(readFileSync(join(PACKS, "tiny", "model.json"), "utf8")) as Description;
const parts = description.files.flatMap((file) => file.parts);
const largest = parts.reduce((a, b) => (a.size > b.size ? a : b));

test.beforeEach(({ page, site }) => openApi(page, site));

test("from nothing to nothing: availability, progress, info, photos of every kind, models, delete", async ({
  page,
  site,
}) => {
  const result = await page.evaluate(async () => {
    const { Groma } = window.api;
    window.asked = 0;
    const storage = Object.getPrototypeOf(navigator.storage) as StorageManager;
    storage.persist = () => {
      window.asked++;
      return Promise.resolve(true);
    };
    const { model } = window;
    const before = await Groma.availability({ model });
    const nowhere = await Groma.availability({ model: "nowhere/" });
    const seen: number[] = [];
    const groma = await Groma.create({
      model,
      device: "cpu",
      monitor: (m) =>
        m.addEventListener("downloadprogress", (e) => {
          const { loaded, total } = e as unknown as { loaded: number; total: number };
          seen.push(loaded / total);
        }),
    });
    const after = await Groma.availability({ model });
    const url = URL.createObjectURL(window.photo);
    const image = new Image();
    image.src = url;
    await image.decode();
    const bitmap = await createImageBitmap(window.photo);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    canvas?.drawImage(bitmap, 0, 0);
    const pixels = canvas?.getImageData(0, 0, bitmap.width, bitmap.height);
    const file = new File([window.photo], "x.png");
    const opened = [];
    for (const source of [window.photo, file, image, new URL(url), url, bitmap, pixels]) {
      if (!source) continue;
      const photo = await groma.open(source);
      opened.push({ width: photo.width, height: photo.height, regions: photo.regions });
      await photo.close();
    }
    const models = await Groma.models();
    const listed = models.map(({ name, bytes }) => ({ name, bytes }));
    const { info } = groma;
    await groma.destroy();
    for (const one of models) await one.delete();
    return {
      before,
      nowhere,
      after,
      seen,
      opened,
      bitmapWidth: bitmap.width,
      listed,
      info,
      asked: window.asked,
      left: (await Groma.models()).length,
      then: await Groma.availability({ model }),
    };
  });
  expect(result).toMatchObject({
    before: "downloadable",
    nowhere: "unavailable",
    after: "available",
    then: "downloadable",
    left: 0,
    listed: [{ bytes: description.total }],
    info: { device: "cpu", note: "forced", bytes: description.total },
    asked: 1,
  });
  expect(result.info.contextLength).toBeGreaterThan(0);
  expect([result.seen[0], result.seen.at(-1)]).toEqual([0, 1]);
  expect(result.seen).toEqual([...result.seen].sort((a, b) => a - b));
  expect(result.opened).toHaveLength(7);
  // The caller's bitmap is still its own, and what the browser decodes without loss is the same photo.
  expect(result.bitmapWidth).toBe(result.opened[0]?.width);
  for (const opened of result.opened) expect(opened).toEqual(result.opened[0]);
  expect(result.opened[0]?.regions.length).toBeGreaterThan(0);
  expect(await kept(page, "parts")).toEqual([]);
  expect(site.parts.length).toBe(parts.length);
});

test("engines of the same model are one worker and one download", async ({ page, site }) => {
  const texts = await page.evaluate(async () => {
    const { Groma } = window.api;
    const make = () => Groma.create({ model: window.model, device: "cpu" });
    const [a, b] = await Promise.all([make(), make()]);
    const [one, two] = await Promise.all([a.open(window.photo), b.open(window.photo)]);
    // Two questions at once, of two engines that are one: both are answered, one after the other.
    const answers = [one.ask("What?", { maxTokens: 8 }), two.ask("What?", { maxTokens: 8 })];
    const said = (await Promise.all(answers.map(({ done }) => done))).map(({ tokens }) => tokens);
    await a.destroy();
    said.push((await two.ask("And?", { maxTokens: 8 }).done).tokens);
    (window as unknown as { b: typeof b }).b = b;
    return said;
  });
  expect(texts[0]).toEqual(texts[1]);
  expect(texts[2]?.length).toBeGreaterThan(0);
  expect(page.workers()).toHaveLength(1);
  expect(new Set(site.parts.map(({ path }) => path)).size).toBe(site.parts.length);
  await page.evaluate(() => (window as unknown as { b: Api.Groma }).b.destroy());
  await expect.poll(() => page.workers().length).toBe(0);
});

test("a second tab waits for the first one's download, and sees it go on", async ({
  page,
  context,
  site,
}) => {
  site.fates.push({ file: largest.name, fate: "slow", times: 1 });
  const second = await context.newPage();
  await openApi(second, site);
  const create = (tab: Page) =>
    tab.evaluate(async () => {
      const seen: number[] = [];
      const monitor = (m: EventTarget) =>
        m.addEventListener("downloadprogress", (e) => seen.push((e as unknown as { loaded: number }).loaded));
      const groma = await window.api.Groma.create({ model: window.model, device: "cpu", monitor });
      await groma.destroy();
      return seen;
    });
  const first = create(page);
  const availability = () => second.evaluate(() => window.api.Groma.availability({ model: window.model }));
  await expect.poll(availability).toBe("downloading");
  const seen = await create(second);
  await first;
  expect(site.parts.map(({ path }) => path).sort()).toEqual(
    [...new Set(site.parts.map((p) => p.path))].sort(),
  );
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  // More than nothing, all, and ready: the half of the slow part that was there while it waited.
  expect(seen.some((loaded) => loaded > 0 && loaded < 0.9)).toBe(true);
  expect(await availability()).toBe("available");
  await second.close();
});

test.describe("when the host misbehaves", () => {
  test.use({ noise: [/Failed to load resource/] });

  for (const fate of ["refused", "whole"] as const) {
    test(`a rest that is ${fate} does no harm`, async ({ page, site }) => {
      site.fates.push({ file: largest.name, fate: "cut", times: 1 }, { file: largest.name, fate, times: 1 });
      const width = await page.evaluate(async () => {
        const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
        return (await groma.open(window.photo)).width;
      });
      expect(width).toBeGreaterThan(0);
      const asked = site.parts.filter(({ path }) => path.endsWith(largest.name)).map(({ range }) => range);
      expect(asked[1]).toMatch(/^bytes=[1-9]\d*-$/);
      expect(asked).toHaveLength(fate === "refused" ? 3 : 2);
    });
  }

  test("an image is looked at though its address was given back", async ({ page }) => {
    const looks = await page.evaluate(async () => {
      const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
      const image = new Image();
      image.src = URL.createObjectURL(window.photo);
      await image.decode();
      URL.revokeObjectURL(image.src);
      const [seen, whole] = [await groma.open(image), await groma.open(window.photo)];
      return [seen, whole].map(({ width, height, regions }) => ({ width, height, regions }));
    });
    expect(looks[0]).toEqual(looks[1]);
  });
});

test("storage that is too small is said in MiB, and what has arrived is kept", async ({ page, site }) => {
  const cdp = await page.context().newCDPSession(page);
  const origin = new URL(site.url).origin;
  // Chromium tells pages of 10 GiB whatever it gives, so the writing is what fails.
  await cdp.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: description.total >> 1 });
  const create = () =>
    page.evaluate(async () => {
      try {
        const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
        await groma.destroy();
        return undefined;
      } catch (e) {
        const { name, reason, message } = e as Api.GromaError;
        return { name, reason, message, is: e instanceof DOMException };
      }
    });
  const error = await create();
  expect(error).toMatchObject({ name: "QuotaExceededError", reason: "out-of-storage", is: true });
  expect(error?.message).toMatch(/needs \d+ MiB more of this browser's storage/);
  await cdp.send("Storage.overrideQuotaForOrigin", { origin });
  site.requests.length = 0;
  expect(await create()).toBeUndefined();
  expect(site.parts.length).toBeGreaterThan(0);
  const whole = site.parts.filter(({ range }) => range === undefined);
  expect(whole.length).toBeLessThan(parts.length);
});

test("everything can be given up at any time, and what is left works", async ({ page }) => {
  const result = await page.evaluate(async () => {
    const { Groma } = window.api;
    const names: string[] = [];
    const expectAbort = async (work: Promise<unknown>) =>
      work.then(
        () => names.push("nothing"),
        (e: unknown) => names.push((e as Api.GromaError).reason),
      );
    const { model } = window;
    // At every step of loading that reports itself, and before the first.
    await expectAbort(Groma.create({ model, device: "cpu", signal: AbortSignal.abort() }));
    for (const at of [1, 2, 4]) {
      const stop = new AbortController();
      let seen = 0;
      const monitor = (m: EventTarget) =>
        m.addEventListener("downloadprogress", () => {
          if (++seen === at) stop.abort();
        });
      await expectAbort(
        Groma.create({ model, device: "cpu", debug: { storage: "memory" }, monitor, signal: stop.signal }),
      );
    }
    const groma = await Groma.create({ model, device: "cpu" });
    for (const at of [0, 1]) {
      const stop = new AbortController();
      let seen = 0;
      const onProgress = () => {
        if (++seen === at) stop.abort();
      };
      if (at === 0) stop.abort();
      await expectAbort(groma.open(window.photo, { signal: stop.signal, onProgress }));
    }
    const photo = await groma.open(window.photo);
    const stops: string[] = [];
    for (const at of [0, 1, 3]) {
      const stop = new AbortController();
      if (at === 0) stop.abort();
      let seen = 0;
      const answer = photo.ask("What?", { maxTokens: 1500, signal: stop.signal });
      for await (const piece of answer) if (piece.index >= 0 && ++seen === at) stop.abort();
      stops.push((await answer.done).stopped);
    }
    const whole = await photo.ask("What?", { maxTokens: 8 }).done;
    await groma.destroy();
    return { names, stops, tokens: whole.tokens.length };
  });
  expect(result.names).toEqual(Array.from({ length: 6 }, () => "aborted"));
  expect(result.stops).toEqual(["aborted", "aborted", "aborted"]);
  expect(result.tokens).toBeGreaterThan(0);
});

/** Asks two questions; the first may fail by itself and is then asked again. Gives the reasons and the tokens. */
function converse(page: Page, options: { device: "cpu" | "gpu"; debug?: Api.Debug }) {
  return page.evaluate(async ({ device, debug = {} }) => {
    const groma = await window.api.Groma.create({ model: window.model, device, debug });
    const photo = await groma.open(window.photo);
    const reasons: string[] = [];
    const ask = (question: string) => photo.ask(question, { maxTokens: 12 }).done;
    const first = ask("What is this?");
    const waiting = first.then(
      () => undefined,
      () => undefined,
    );
    const one = await first.catch((e: unknown) => {
      reasons.push((e as Api.GromaError).reason);
      return waiting.then(() => ask("What is this?"));
    });
    const two = await ask("And what else?");
    const caption = await photo.caption([1, 1, photo.width / 2, photo.height / 2], { maxTokens: 6 }).done;
    await groma.destroy();
    // How often the photo was looked at, as far as the answers tell: each look has its own time.
    const looks = new Set([one, two, caption].map(({ timing }) => timing.vision_ms)).size;
    const tokens = [one.tokens, two.tokens, caption.tokens];
    return { said: { reasons, tokens, prompt: two.timing.prompt }, looks };
  }, options);
}

test.describe("staying alive", () => {
  test.use({ noise: [/forced to fail|unreachable/] });

  for (const [kind, reason] of [
    ["worker", "internal"],
    ["trap", "out-of-memory"],
  ] as const) {
    test(`a ${kind} that fails is told, and the next question has a new one`, async ({ page, site }) => {
      const { said: want } = await converse(page, { device: "cpu" });
      const before = site.parts.length;
      const got = await converse(page, { device: "cpu", debug: { fault: { kind, after: 2 } } });
      expect(got.said).toEqual({ ...want, reasons: [reason] });
      expect(site.parts.length).toBe(before);
      await expect.poll(() => page.workers().length).toBe(0);
    });
  }

  test("a GPU that is lost in the middle of an answer is opened again and the question with it", async ({
    page,
    site,
  }) => {
    const { said: want, looks } = await converse(page, { device: "gpu" });
    expect(looks).toBe(1);
    const before = site.parts.length;
    // In the second answer, so that the first one has to be remembered.
    const got = await converse(page, { device: "gpu", debug: { fault: { kind: "device", after: 16 } } });
    expect(got.said).toEqual(want);
    expect(got.looks).toBe(2);
    expect(site.parts.length).toBe(before);
  });

  test("to end an engine is no loss of its GPU", async ({ page }) => {
    const result = await page.evaluate(async () => {
      const groma = await window.api.Groma.create({ model: window.model, device: "gpu" });
      const photo = await groma.open(window.photo);
      const answer = photo.describe({ maxTokens: 64 });
      await answer[Symbol.asyncIterator]().next();
      await groma.destroy();
      const closed = await photo.ask("Still?").done.catch((e: unknown) => (e as Api.GromaError).reason);
      return { stopped: (await answer.done).stopped, closed };
    });
    expect(result).toEqual({ stopped: "aborted", closed: "closed" });
    await expect.poll(() => page.workers().length).toBe(0);
  });
});

test.describe("every fall-back can be forced", () => {
  type Row = readonly [name: string, device: "auto" | "gpu" | "cpu", debug: Api.Debug, becomes: string];
  // What becomes of it: where it answers and why there, or the reason why it doesn't.
  const rows: readonly Row[] = [
    ["nothing", "cpu", {}, "cpu forced"],
    ["exact arithmetic", "cpu", { numerics: "exact" }, "cpu forced"],
    ["no storage", "cpu", { storage: "memory" }, "cpu forced"],
    ["no WebGPU", "auto", { webgpu: "none" }, "cpu no-webgpu"],
    ["no WebGPU where it is wanted", "gpu", { webgpu: "none" }, "no-webgpu"],
    ["no adapter", "auto", { webgpu: "no-adapter" }, "cpu no-adapter"],
    ["no adapter where one is wanted", "gpu", { webgpu: "no-adapter" }, "no-webgpu"],
    ["a software adapter", "auto", { webgpu: "software" }, "cpu software-adapter"],
    ["an adapter that is gone", "auto", { webgpu: "gone" }, "cpu no-adapter"],
    ["an adapter that is gone where it is wanted", "gpu", { webgpu: "gone" }, "no-webgpu"],
    ["an insecure address", "cpu", { address: "insecure" }, "io"],
    ["little memory", "gpu", { gpu: { memory: 10_000 } }, "out-of-memory"],
    ["default limits", "gpu", { gpu: { defaultLimits: true } }, "gpu"],
    ["small bindings", "gpu", { gpu: { binding: 1 << 20 } }, "gpu"],
    ["kernels for real adapters", "gpu", { gpu: { kernels: "hardware" } }, "gpu"],
    ["kernels for software adapters", "gpu", { gpu: { kernels: "software" } }, "gpu"],
    ["slow readbacks", "gpu", { gpu: { mapLatencyMs: 100 } }, "gpu"],
  ];

  test("and answers alike or says why not", async ({ page }) => {
    const found = await page.evaluate(
      (all) =>
        (async () => {
          const { Groma } = window.api;
          const seen: { becomes: string; tokens: readonly number[]; ms: number }[] = [];
          for (const [, device, debug] of all) {
            try {
              const groma = await Groma.create({ model: window.model, device, debug });
              const photo = await groma.open(window.photo);
              const started = performance.now();
              const { tokens } = await photo.describe({ maxTokens: 8 }).done;
              const ms = performance.now() - started;
              const { device: kind, note } = groma.info;
              await groma.destroy();
              seen.push({ becomes: [kind, note].filter(Boolean).join(" "), tokens, ms });
            } catch (error) {
              seen.push({ becomes: (error as Api.GromaError).reason, tokens: [], ms: 0 });
            }
          }
          return seen;
        })(),
      rows,
    );
    const table = found.map(({ becomes }, at) => `${rows[at]?.[0]}: ${becomes}`);
    expect(table).toEqual(rows.map(([name, , , becomes]) => `${name}: ${becomes}`));
    const want = found[0]?.tokens;
    expect(want?.length).toBeGreaterThan(0);
    for (const { tokens } of found) if (tokens.length > 0) expect(tokens).toEqual(want);
    const ms = (name: string) => found[rows.findIndex((row) => row[0] === name)]?.ms ?? 0;
    expect(ms("slow readbacks")).toBeGreaterThan(ms("kernels for software adapters") + 90);
  });

  test("and a WebP file lies as such a browser shows it", async ({ page }) => {
    const bytes = readFileSync(join(ROOT, "tests", "native", "fixtures", "exif_6.webp"));
    const sizes = await page.evaluate(async (text) => {
      const photo = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
      const seen: string[] = [];
      for (const debug of [{ webp: "turned" }, { webp: "unturned" }] as const) {
        const groma = await window.api.Groma.create({ model: window.model, device: "cpu", debug });
        const { width, height } = await groma.open(photo);
        seen.push(`${width} x ${height}`);
        await groma.destroy();
      }
      return seen;
    }, bytes.toString("base64"));
    expect(sizes).toEqual(["16 x 8", "8 x 16"]);
  });

  test("and the store is looked at where debug says", async ({ page }) => {
    const missing = await page.evaluate(async () => {
      const { Groma } = window.api;
      const { model } = window;
      await (await Groma.create({ model, device: "cpu" })).destroy();
      const size = async (debug: Api.Debug) => (await Groma.size({ model, debug })).missing;
      return [await size({}), await size({ storage: "memory" })];
    });
    expect(missing).toEqual([0, description.total]);
  });
});
