/** Every state of the element in every look: light, dark, in forced colours, from 320 to 2560 pixels. */

import { expect, test, type Page } from "@playwright/test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { regions } from "./fake-page.js";
import { wrong } from "./looks.js";
import { ROOT } from "./packs.js";
import { choosePhoto } from "./site.js";

const PAGE = "/tests/web/fixture/index.html";
const sample = join(ROOT, "dist", "samples", "astronaut.png");

const choose = (page: Page) => choosePhoto(page, existsSync(sample) ? sample : undefined);
const release = (page: Page) =>
  page.evaluate(() => (globalThis as never as { fake: { release(): void } }).fake.release());
const press = (page: Page, name: string | RegExp) => page.getByRole("button", { name }).click();

async function ask(page: Page): Promise<void> {
  await page.getByRole("textbox").fill("Who is on the photo?");
  await page.keyboard.press("Enter");
}

async function ready(page: Page, query = "?cached"): Promise<void> {
  await page.goto(PAGE + query);
  await choose(page);
  await regions(page);
}

test("nothing bars the way before the photo was looked at", async ({ page }) => {
  await page.goto(`${PAGE}?hold&hold-look`);
  const load = page.getByRole("button", { name: "Load 145 MB" });
  await expect(load).toBeVisible();
  const found = await wrong(page, "poster");
  await page.setViewportSize({ width: 320, height: 640 });
  await load.scrollIntoViewIfNeeded();
  await expect(load).toBeInViewport();
  await load.click();
  await choose(page);
  await expect(page.getByText("65 MB of 145 MB")).toBeVisible();
  found.push(...(await wrong(page, "loading")));
  await release(page);
  await expect(page.getByText("Looking at the photo … 50 %")).toBeVisible();
  found.push(...(await wrong(page, "looking")));
  await press(page, "Stop");
  await expect(page.getByRole("button", { name: "Look at the photo" })).toBeVisible();
  found.push(...(await wrong(page, "looking stopped")));
  expect(found).toEqual([]);
});

test("nothing bars the way with a photo", async ({ page }) => {
  await ready(page);
  const found = await wrong(page, "ready");
  await press(page, "Draw a box");
  found.push(...(await wrong(page, "drawing")));
  await page.keyboard.press("Escape");
  await expect(page.getByRole("button", { name: "Draw a box" })).toHaveAttribute("aria-pressed", "false");
  await page.getByRole("button", { name: "Draw a box" }).press("Enter");
  await expect(page.getByRole("application", { name: "Box 1" })).toBeVisible();
  found.push(...(await wrong(page, "boxes of the question")));
  await press(page, "New photo");
  await expect(page.getByRole("button", { name: "Back to the photo" })).toBeVisible();
  found.push(...(await wrong(page, "new photo")));
  await page.locator("groma-chat").evaluate((chat) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["x"], "x.png", { type: "image/png" }));
    chat.dispatchEvent(new DragEvent("dragover", { dataTransfer, cancelable: true }));
  });
  await expect(page.getByText("Drop the photo here")).toBeVisible();
  found.push(...(await wrong(page, "drop")));
  expect(found).toEqual([]);
});

test("nothing bars the way with an answer", async ({ page }) => {
  await page.goto(`${PAGE}?cached&hold`);
  await choose(page);
  await expect(page.getByText("65 MB of 145 MB")).toBeVisible();
  await release(page);
  await regions(page);
  await ask(page);
  await expect(page.getByRole("button", { name: "A woman regions 0 1" })).toBeVisible();
  const found = await wrong(page, "answering");
  await release(page);
  await expect(page.getByText("24 tokens")).toBeVisible();
  found.push(...(await wrong(page, "answered")));
  await press(page, "a flag region 3");
  await press(page, "All boxes");
  found.push(...(await wrong(page, "pinned")));
  await press(page, "Zoom in");
  found.push(...(await wrong(page, "zoomed")));
  await ask(page);
  await expect(page.getByRole("button", { name: "A woman regions 0 1" })).toHaveCount(2);
  await press(page, "Stop");
  await expect(page.getByText("Stopped ·")).toBeVisible();
  found.push(...(await wrong(page, "answer stopped")));
  expect(found).toEqual([]);
});

test("nothing bars the way where something failed, or where little may be done", async ({ page }) => {
  await page.goto(`${PAGE}?fail`);
  await press(page, /^Load/);
  await expect(page.getByRole("alert")).toBeVisible();
  const found = await wrong(page, "loading failed");
  await ready(page, "?cached&trap");
  await ask(page);
  await expect(page.getByRole("button", { name: "Ask again" })).toBeVisible();
  found.push(...(await wrong(page, "answer failed")));
  await page.goto(`${PAGE}?nogpu`);
  await expect(page.getByText("This figure needs a graphics card.")).toBeVisible();
  found.push(...(await wrong(page, "fallback")));
  await ready(page);
  await page
    .locator("groma-chat")
    .evaluate((chat) => Object.assign(chat, { readonly: true, question: "Who is it?" }));
  await expect(page.getByRole("textbox")).not.toBeEditable();
  found.push(...(await wrong(page, "readonly")));
  expect(found).toEqual([]);
});

test("where the reader has colours of their own, what is pressed and what goes on are still told", async ({
  page,
}) => {
  await page.emulateMedia({ forcedColors: "active" });
  await page.goto(`${PAGE}?cached&hold`);
  await choose(page);
  await expect(page.getByText("65 MB of 145 MB")).toBeVisible();
  await release(page);
  await regions(page);
  await press(page, "Draw a box");
  const drawing = page.getByRole("button", { name: "Draw a box" });
  await expect(drawing).toHaveAttribute("aria-pressed", "true");
  await page.mouse.move(0, 0);
  await drawing.evaluate((button: HTMLElement) => button.blur());
  await expect(drawing).toHaveCSS("outline-style", "solid");
  await drawing.click();
  await drawing.evaluate((button: HTMLElement) => button.blur());
  await expect(drawing).toHaveCSS("outline-style", "none");
  await ask(page);
  // What is nothing but a background stands out from the ground that it lies on.
  const seen = (selector: string) =>
    page
      .locator(selector)
      .first()
      .evaluate((mark) => {
        const ground = getComputedStyle(mark.closest(".talk") ?? mark).backgroundColor;
        return getComputedStyle(mark).backgroundColor !== ground;
      });
  await expect.poll(() => seen(".caret")).toBe(true);
});
