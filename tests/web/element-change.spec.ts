/** The element while its page, its reader and its network do things at once. */

import { readFile } from "node:fs/promises";
import { expect, test } from "@playwright/test";
import type { GromaChat } from "../../www/element/chat.js";
import { change, made, open, put } from "./embed-page.js";
import { fakeAnswer, regions } from "./fake-page.js";
import { PHOTO } from "./site.js";

test("an attribute that is taken away counts as never given, and what a framework does not set as well", async ({
  page,
}) => {
  await open(page);
  const given = { task: "detect", tasks: "ask detect", question: "a cup", alt: "A table", numerics: "fast" };
  await put(page, { src: "/photos/a.png", load: "eager", device: "auto", "max-tokens": "9", ...given });
  await regions(page);
  const [count] = await made(page);
  for (const name of ["task", "tasks", "question", "alt", "numerics", "load", "device", "max-tokens"]) {
    await page.locator("groma-chat").evaluate((chat, attribute) => chat.removeAttribute(attribute), name);
  }
  await expect(page.getByRole("radio")).toHaveCount(5);
  await expect(page.getByRole("textbox", { name: "Ask" })).toHaveValue("");
  await change(page, (chat) =>
    Object.assign(chat, {
      boxes: undefined,
      question: undefined,
      tasks: null,
      numerics: undefined,
      maxTokens: null,
    }),
  );
  await fakeAnswer(page, "Who?");
  expect((await made(page))[0], "the same engine all the time").toBe(count);
  await change(page, (chat) => chat.removeAttribute("src"));
  await expect(page.getByRole("img")).toHaveCount(0);
});

test("an address that answers late does not take the reader's own photo away", async ({ page }) => {
  await open(page);
  let answer: () => void = () => undefined;
  const late = new Promise<void>((done) => (answer = done));
  await page.route("**/photos/slow.png", async (route) => {
    await late;
    await route.fulfill({ body: await readFile(PHOTO), contentType: "image/png" }).catch(() => undefined);
  });
  await put(page, { src: "/photos/slow.png", alt: "A street market" });
  await change(page, async (chat) => chat.open(await (await fetch("/photos/a.png")).blob(), "my own"));
  await regions(page);
  answer();
  await page.waitForTimeout(300);
  await expect(page.getByRole("img", { name: "my own" })).toBeVisible();
  expect((await made(page))[0]).toBe(1);
});

test("a photo that is opened as soon as the model is ready is looked at once", async ({ page }) => {
  await open(page);
  await put(page, { load: "interaction" });
  await page.evaluate(() => {
    globalThis.seen = [];
    document.body.addEventListener("groma-ready", ({ target }) => {
      void (async () => (target as GromaChat).open(await (await fetch("/photos/a.png")).blob(), "mine"))();
    });
    document.addEventListener("groma-regions", ({ type }) => seen.push({ name: type, detail: "", at: "" }));
  });
  await page.getByRole("button", { name: "Start" }).click();
  await regions(page);
  await page.waitForTimeout(300);
  expect(await page.evaluate(() => seen.length)).toBe(1);
});

test("another model while the photo is looked at is no stop", async ({ page }) => {
  await open(page, "?cached&hold");
  await put(page, { src: "/photos/a.png", load: "eager" });
  await expect(page.getByText("65 MB of 145 MB")).toBeVisible();
  await page.evaluate(() => embed.maker.release());
  await expect(page.getByText(/^Looking at the photo/)).toBeVisible();
  await change(page, (chat) => (chat.model = "/small/"));
  await expect(page.getByText("65 MB of 145 MB")).toBeVisible();
  await expect(page.getByText("Stopped")).toHaveCount(0);
  await expect(page.getByRole("button", { name: "Look at the photo" })).toHaveCount(0);
  await page.evaluate(() => embed.maker.release());
  await regions(page);
});

test("a model that can't be offered fails once, also where it was to begin at once", async ({ page }) => {
  await open(page, "?nogpu");
  await page.evaluate(() => {
    globalThis.seen = [];
    document.body.addEventListener("groma-error", (event) =>
      seen.push({ name: event.type, detail: event.detail.error.reason, at: event.detail.error.message }),
    );
  });
  await put(page, { device: "gpu", load: "eager" });
  await expect(page.getByRole("alert")).toBeVisible();
  await page.waitForTimeout(300);
  expect(await page.evaluate(() => seen)).toEqual([
    { name: "groma-error", detail: "no-webgpu", at: "This browser has no WebGPU. Use the processor." },
  ]);
  expect(await made(page)).toEqual([0, 0]);
});

test("boxes that a program sets lie on the photo, whenever they are set", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await change(
    page,
    (chat) =>
      (chat.boxes = [
        [0, 0, 99_999, 99_999],
        [500, 500, 600, 600],
      ]),
  );
  expect(await change(page, (chat) => chat.boxes)).toEqual([[0, 0, 150, 97]]);
});

test("without a model the element says so", async ({ page }) => {
  await open(page);
  await put(page, { model: "" });
  await expect(page.getByText("No model was named", { exact: false })).toBeVisible();
});

test("an engine that starts again on another device says so", async ({ page }) => {
  await open(page, "?cached&gpu&other-device");
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await page.evaluate(() => {
    globalThis.seen = [];
    document.body.addEventListener("groma-ready", ({ type, detail }) =>
      seen.push({ name: type, detail: detail.device, at: "" }),
    );
  });
  await fakeAnswer(page);
  expect(await page.evaluate(() => seen)).toEqual([{ name: "groma-ready", detail: "cpu", at: "" }]);
  await fakeAnswer(page);
  expect(await page.evaluate(() => seen.length)).toBe(1);
});
