/** The element in pages of other habits: their type, their shortcuts. */

import { expect, test, type Page } from "@playwright/test";
import { BOOK_SCRIPT, BOOK_STYLE } from "./book.js";
import { open, put } from "./embed-page.js";
import { fakeAnswer, regions } from "./fake-page.js";

/** The embedding page as a chapter of a book. */
async function openBook(page: Page): Promise<void> {
  await open(page);
  await page.addStyleTag({ content: BOOK_STYLE });
  await page.addScriptTag({ content: BOOK_SCRIPT });
}

const taken = (page: Page) => page.evaluate(() => shortcuts);

test("a book's small root leaves the element's words as large as the reader has them", async ({ page }) => {
  await openBook(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await fakeAnswer(page);
  const field = page.getByRole("textbox", { name: "Ask" });
  await expect(field).toHaveCSS("font-size", "16px");
  await expect(page.getByText("24 tokens")).toHaveCSS("font-size", "13px");
  await expect(page.getByRole("article").locator(".answer")).toHaveCSS("font-size", "17px");
  const button = await page.getByRole("button", { name: "Ask", exact: true }).boundingBox();
  expect(button?.height).toBeGreaterThanOrEqual(36);
  expect((await page.locator("groma-chat").boundingBox())?.height).toBeGreaterThanOrEqual(480);
  // A page may tell another size, also one of its own.
  for (const [size, pixels] of [
    ["20px", "20px"],
    ["1.25em", "20px"],
    ["1.8rem", "18px"],
  ] as const) {
    await page.locator("groma-chat").evaluate((chat, wanted) => {
      (chat as HTMLElement).style.setProperty("--groma-font-size", wanted);
    }, size);
    await expect(field).toHaveCSS("font-size", pixels);
  }
});

test("what is typed or pressed in the element is no shortcut of the book", async ({ page }) => {
  await openBook(page);
  await put(page, { src: "/photos/a.png", load: "eager" }, '<button slot="toolbar">Of the page</button>');
  await regions(page);
  const field = page.getByRole("textbox", { name: "Ask" });
  await field.click();
  await page.keyboard.type("is/so?");
  await field.press("ArrowLeft");
  await expect(field).toHaveValue("is/so?");
  await field.press("Enter");
  await expect(page.getByText("24 tokens")).toBeVisible();
  await page.getByRole("radio", { name: "Ask" }).press("ArrowRight");
  await page.getByRole("option").first().press("ArrowRight");
  await page.getByRole("log").press("ArrowRight");
  await page.getByRole("button", { name: "Draw a box" }).press("Enter");
  await page.getByRole("application", { name: "Box 1" }).press("Alt+ArrowRight");
  expect(await taken(page)).toEqual([]);
  // What is not ours stays the page's: other letters outside the field, Escape, its own buttons in our slots.
  await page.getByRole("log").press("s");
  await page.getByRole("log").press("Escape");
  await page.getByRole("button", { name: "Of the page" }).press("ArrowRight");
  expect(await taken(page)).toEqual(["s", "Escape", "ArrowRight"]);
});

test("without a height of its page's it is as high as it says, however long the talk", async ({ page }) => {
  await openBook(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  for (let at = 0; at < 3; at++) await fakeAnswer(page);
  // The last answer is where it can be read: in the log, not under the page's next paragraph.
  await expect(page.getByText("24 tokens").last()).toBeInViewport();
  for (const width of [1280, 300]) {
    await page.setViewportSize({ width, height: 700 });
    const sizes = await page.locator("groma-chat").evaluate((chat) => {
      const shell = chat.shadowRoot?.firstElementChild;
      return [chat, shell].map((one) => one?.getBoundingClientRect().height);
    });
    expect(sizes).toEqual([480, 480]);
    const talk = await page.getByRole("group", { name: "Conversation" }).boundingBox();
    const field = await page.getByRole("textbox", { name: "Ask" }).boundingBox();
    expect((field?.x ?? 0) + (field?.width ?? 0)).toBeLessThan((talk?.x ?? 0) + (talk?.width ?? 0));
  }
});
