/** How photos and readers' fingers get in: dropped, pasted, tapped. */

import { readFile } from "node:fs/promises";
import { expect, test, type Page } from "@playwright/test";
import { change, open, put } from "./embed-page.js";
import { fakeAnswer, openPage, regions } from "./fake-page.js";
import { choosePhoto, PHOTO } from "./site.js";

/** Lets go of a file above a place, as the browser tells it. */
async function drop(page: Page, onto: string, type = "image/png"): Promise<void> {
  const photo = await readFile(PHOTO);
  await page.locator(onto).evaluate(
    (place, { bytes, mime }) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png", { type: mime }));
      const tell = (name: string) =>
        place.dispatchEvent(
          new DragEvent(name, { dataTransfer, bubbles: true, composed: true, cancelable: true }),
        );
      // Nothing may be dropped where nobody says that it may.
      if (!tell("dragover")) tell("drop");
    },
    { bytes: [...photo], mime: type },
  );
}

/** Puts a picture into the clipboard and pastes it by the keyboard, as a person does. */
async function paste(page: Page): Promise<void> {
  const photo = await readFile(PHOTO);
  await page.evaluate(
    async (bytes) => {
      const blob = new Blob([Uint8Array.from(bytes)], { type: "image/png" });
      await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    },
    [...photo],
  );
  await page.keyboard.press("ControlOrMeta+v");
}

test("a photo is dropped on the element, which says where", async ({ page }) => {
  await open(page);
  await put(page, { load: "eager" });
  await change(page, (chat) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["x"], "x.png", { type: "image/png" }));
    chat.dispatchEvent(new DragEvent("dragover", { dataTransfer, cancelable: true }));
  });
  await expect(page.getByText("Drop the photo here")).toBeVisible();
  await change(page, (chat) => chat.dispatchEvent(new DragEvent("dragleave")));
  await expect(page.getByText("Drop the photo here")).toHaveCount(0);
  await drop(page, "groma-chat");
  await expect(page.getByRole("img", { name: "dropped.png" })).toBeVisible();
  await regions(page);
});

test("nothing is dropped on an element that shows a given photo", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager", readonly: "", question: "Who?" });
  await regions(page);
  await drop(page, "groma-chat");
  await expect(page.getByRole("img", { name: "a.png" })).toBeVisible();
  await expect(page.getByRole("img", { name: "dropped.png" })).toHaveCount(0);
});

test("a photo that is dropped beside the element does not take the page away", async ({ page }) => {
  await openPage(page);
  await drop(page, "body");
  await expect(page.getByRole("heading", { name: "Choose a photo" })).toBeVisible();
  await drop(page, "groma-chat");
  await expect(page.getByRole("img", { name: "dropped.png" })).toBeVisible();
});

test.describe("with a clipboard", () => {
  test.use({ permissions: ["clipboard-read", "clipboard-write"] });

  test("a photo is pasted into an element that was clicked, or that has the focus", async ({ page }) => {
    await open(page);
    await put(page, { load: "eager" });
    await expect(page.getByRole("textbox", { name: "Ask" })).toBeVisible();
    await paste(page);
    await expect(page.getByRole("img"), "an embed takes nothing from its page").toHaveCount(0);
    await page.getByText("Drop one here, paste it, or pick a file.").click();
    await paste(page);
    await expect(page.getByRole("img", { name: "image.png" })).toBeVisible();
    await regions(page);
    await page.getByRole("button", { name: "New photo" }).click();
    await page.getByRole("button", { name: "Choose a photo" }).focus();
    await paste(page);
    await expect(page.getByRole("heading", { name: "Choose a photo" })).toHaveCount(0);
    await regions(page);
  });

  test("on the page a photo is pasted anywhere", async ({ page }) => {
    await openPage(page);
    await paste(page);
    await expect(page.getByRole("img", { name: "Pasted photo" })).toBeVisible();
  });
});

test.describe("by finger", () => {
  test.use({ hasTouch: true, viewport: { width: 400, height: 800 } });

  test("a tap on a phrase shows its boxes, a tap on a box its phrase", async ({ page }) => {
    await page.goto("/tests/web/fixture/index.html?cached");
    await choosePhoto(page);
    await regions(page);
    await fakeAnswer(page);
    const flag = page.getByRole("button", { name: "a flag region 3" });
    const box = page.getByRole("option", { name: /^Region 3/ });
    await expect(box).toHaveAttribute("aria-selected", "false");
    await flag.tap();
    await expect(flag).toHaveAttribute("aria-pressed", "true");
    await expect(box).toHaveAttribute("aria-selected", "true");
    const suit = page.getByRole("button", { name: "an orange suit region 5" });
    await page.getByRole("option", { name: /^Region 5/ }).tap();
    await expect(page.getByRole("option", { name: /^Region 5/ })).toHaveAttribute("aria-selected", "true");
    await expect(suit).toHaveClass(/active/);
    await expect(box).toHaveAttribute("aria-selected", "false");
  });
});
