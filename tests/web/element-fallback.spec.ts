/** What the element offers where the GPU can't: the processor, on the real engine with a tiny model and a GPU that is told to fail. */

import type { Page } from "@playwright/test";
import type * as Api from "../../www/engine/index.js";
import { faults } from "./fake-page.js";
import { refuse, watchGpu } from "./gpu-watch.js";
import { choosePhoto, expect, load, looked, test, type Site } from "./site.js";

/** Puts an element that insists on the GPU into a page; its GPU has what `debug` leaves. */
async function put(page: Page, site: Site, debug: Api.Debug = {}): Promise<void> {
  site.pages.set(
    "figure.html",
    '<!doctype html><html lang="en"><title>A figure</title><link rel="icon" href="data:," /><main><h1>A figure</h1></main></html>',
  );
  await page.goto(`${site.url}figure.html`);
  await page.evaluate(
    async ({ base, forced }) => {
      const { Groma, chooseDevice } = (await import(`${base}groma/groma-web.js`)) as typeof Api;
      await import(`${base}groma/groma-chat.js`);
      const chat = document.createElement("groma-chat");
      chat.maker = {
        create: (options) => Groma.create({ ...options, debug: { ...options.debug, ...forced } }),
        size: (options) => Groma.size(options),
        choose: (wish) => chooseDevice(wish, forced),
      };
      Object.assign(chat, { model: `${base}packs/tiny/`, device: "gpu", maxTokens: 8 });
      document.querySelector("main")?.append(chat);
    },
    { base: site.url, forced: debug },
  );
}

const alert = (page: Page) => page.getByRole("alert");
const processor = (page: Page) => page.getByRole("button", { name: "Use the processor" });

test("no memory for the weights: loaded again for the processor, from what is here", async ({
  page,
  site,
}) => {
  await put(page, site, { gpu: { memory: 500_000 } });
  await choosePhoto(page);
  await load(page);
  await expect(alert(page)).toContainText(
    "The GPU has no memory for 2.0 MiB more (0.1 MiB are in use). Close other tabs, use a smaller model, or the processor",
  );
  await expect(alert(page)).toContainText("out-of-memory");
  await expect(page.getByRole("button", { name: "Try again" })).toBeVisible();
  expect(await faults(page)).toEqual([]);
  await page.screenshot({ path: "test-results/no-memory.png" });
  const before = site.parts.length;
  await processor(page).click();
  await looked(page);
  await expect(processor(page)).toHaveCount(0);
  expect(site.parts.length).toBe(before);
});

test("no memory to look at the photo: it is looked at by the processor", async ({ page, site }) => {
  await watchGpu(page);
  await put(page, site);
  await load(page);
  await expect(page.getByRole("textbox", { name: "Ask" })).toBeVisible();
  await refuse(page, "photo.map.0");
  await choosePhoto(page);
  await expect(alert(page)).toContainText("The GPU has no memory");
  await expect(page.getByRole("button", { name: "Look at the photo" })).toBeVisible();
  await page.screenshot({ path: "test-results/no-memory-look.png" });
  await processor(page).click();
  await looked(page);
  await expect(alert(page)).toHaveCount(0);
});

test("no memory for an answer: the question is put to the processor", async ({ page, site }) => {
  await watchGpu(page);
  await put(page, site);
  await choosePhoto(page);
  await load(page);
  await looked(page);
  await refuse(page, "kv.k.0");
  await page.getByRole("textbox", { name: "Ask" }).fill("What is this?");
  await page.keyboard.press("Enter");
  await expect(alert(page)).toContainText("The GPU has no memory");
  await expect(page.getByRole("button", { name: "Ask again" })).toBeVisible();
  expect(await faults(page)).toEqual([]);
  await page.screenshot({ path: "test-results/no-memory-answer.png" });
  await processor(page).click();
  await expect(page.getByText(/\d tokens/)).toBeVisible();
  await expect(page.getByRole("article")).toHaveCount(1);
  await expect(page.getByText("What is this?")).toBeVisible();
});

test("no WebGPU: nothing is downloaded before the reader agrees to that as well", async ({ page, site }) => {
  await put(page, site, { webgpu: "none" });
  await choosePhoto(page);
  await expect(alert(page)).toContainText("no WebGPU");
  await processor(page).click();
  await expect(page.getByText("The model runs on the processor, as asked for.")).toBeVisible();
  expect(site.parts).toEqual([]);
  await load(page);
  await looked(page);
});

test("a GPU that is lost in the middle of an answer is opened again, and the answer comes", async ({
  page,
  site,
}) => {
  await put(page, site, { fault: { kind: "device", after: 2 } });
  await choosePhoto(page);
  await load(page);
  await looked(page);
  await page.getByRole("textbox", { name: "Ask" }).fill("What is this?");
  await page.keyboard.press("Enter");
  await expect(page.getByText(/\d tokens/)).toBeVisible();
  await expect(alert(page)).toHaveCount(0);
  await expect(page.getByRole("article")).toHaveCount(1);
});
