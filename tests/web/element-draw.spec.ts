/** Drawing and reading: boxes by mouse, finger and keys; looking closer; what a screen reader hears; paper. */

import {
  expect,
  test,
  type BrowserContext,
  type CDPSession,
  type Locator,
  type Page,
} from "@playwright/test";
import type { GromaChat } from "../../www/element/chat.js";
import { fakeAnswer, faults, regions } from "./fake-page.js";
import { choosePhoto } from "./site.js";

const FIXTURE = "/tests/web/fixture/index.html?cached";
// The photo of the tests, in pixels.
const [WIDTH, HEIGHT] = [150, 97];

async function ready(page: Page): Promise<void> {
  await page.goto(FIXTURE);
  await choosePhoto(page);
  await regions(page);
}

const boxes = (page: Page) => page.locator("groma-chat").evaluate((chat) => (chat as GromaChat).boxes);

/** The one box, as left, top, width and height. */
async function box(page: Page): Promise<[number, number, number, number]> {
  const [x0 = 0, y0 = 0, x1 = 0, y1 = 0] = (await boxes(page))[0] ?? [];
  return [x0, y0, x1 - x0, y1 - y0];
}

/** Where a point of the photo, in shares, is on the screen. */
async function on(page: Page, x: number, y: number): Promise<{ x: number; y: number }> {
  const photo = await page.getByRole("img", { name: "photo_A.png" }).boundingBox();
  if (!photo) throw new Error("no photo");
  return { x: photo.x + photo.width * x, y: photo.y + photo.height * y };
}

async function drag(page: Page, from: { x: number; y: number }, to: { x: number; y: number }): Promise<void> {
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move((from.x + to.x) / 2, (from.y + to.y) / 2);
  await page.mouse.move(to.x, to.y);
  await page.mouse.up();
}

const drawn = (page: Page) => page.getByRole("application", { name: "Box 1 of the question" });

test("a box is drawn, moved, resized and deleted by the mouse", async ({ page }) => {
  await ready(page);
  await drag(page, await on(page, 0.2, 0.2), await on(page, 0.4, 0.4));
  const [left, top, width, height] = await box(page);
  expect([left / WIDTH, top / HEIGHT, width / WIDTH, height / HEIGHT].map((v) => Math.round(v * 10))).toEqual(
    [2, 2, 2, 2],
  );
  await drag(page, await on(page, 0.3, 0.3), await on(page, 0.5, 0.4));
  const moved = await box(page);
  expect(moved[0]).toBeGreaterThan(left + WIDTH * 0.15);
  expect(moved.slice(2), "moving keeps the size").toEqual([width, height]);
  await drag(
    page,
    await on(page, (moved[0] + width) / WIDTH, (moved[1] + height) / HEIGHT),
    await on(page, 0.9, 0.9),
  );
  const resized = await box(page);
  expect(resized.slice(0, 2), "the opposite corner stays").toEqual(moved.slice(0, 2));
  expect(resized[2]).toBeGreaterThan(width + 10);
  await drag(page, await on(page, 0.6, 0.6), await on(page, 1.4, 1.4));
  const [x, y, w, h] = await box(page);
  expect([x + w, y + h, w, h], "never out of the photo").toEqual([WIDTH, HEIGHT, ...resized.slice(2)]);
  await drawn(page).press("Delete");
  expect(await boxes(page)).toEqual([]);
});

test("a box is drawn, moved, resized and deleted by keys, and all of it is said", async ({ page }) => {
  await ready(page);
  const said = page.getByRole("status");
  await page.getByRole("button", { name: "Draw a box" }).press("Enter");
  await expect(drawn(page)).toBeFocused();
  await expect(said).toContainText("Box 1 drawn.");
  const [left, top, width, height] = await box(page);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowUp");
  expect(await box(page), "a pixel of the photo").toEqual([left + 1, top - 1, width, height]);
  await expect(said).toContainText(
    `Box 1: left ${left + 1}, top ${top - 1}, width ${width}, height ${height} pixels.`,
  );
  await page.keyboard.press("Shift+ArrowLeft");
  expect(await box(page), "further with Shift").toEqual([left - 9, top - 1, width, height]);
  await page.keyboard.press("Alt+ArrowDown");
  await page.keyboard.press("Alt+Shift+ArrowRight");
  expect(await box(page), "resized with Alt").toEqual([left - 9, top - 1, width + 10, height + 1]);
  for (let at = 0; at < 20; at++) await page.keyboard.press("Shift+ArrowLeft");
  expect((await box(page)).slice(0, 1), "it stops at the border").toEqual([0]);
  expect(await faults(page)).toEqual([]);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("textbox", { name: "Ask" })).toBeFocused();
  await drawn(page).focus();
  await page.keyboard.press("Delete");
  await expect(said).toContainText("Box 1 removed.");
  await expect(page.getByRole("button", { name: "Draw a box" })).toBeFocused();
  expect(await boxes(page)).toEqual([]);
});

test("the boxes of a question stay to be seen with its answer", async ({ page }) => {
  await ready(page);
  await page.getByRole("button", { name: "Draw a box" }).press("Enter");
  await fakeAnswer(page, "What is in [1]?");
  expect(await boxes(page)).toEqual([]);
  await expect(drawn(page)).toHaveCount(0);
  await expect(page.locator(".stage").getByText("[1]")).toBeVisible();
});

test.describe("by finger", () => {
  let context: BrowserContext;
  let page: Page;
  let client: CDPSession;

  test.beforeEach(async ({ browser }) => {
    context = await browser.newContext({ hasTouch: true, viewport: { width: 400, height: 800 } });
    page = await context.newPage();
    client = await context.newCDPSession(page);
    await ready(page);
  });

  test.afterEach(() => context.close());

  type Fingers = { x: number; y: number }[];
  const touch = async (...steps: Fingers[]) => {
    await client.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: steps[0] ?? [] });
    for (const touchPoints of steps.slice(1))
      await client.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints });
    // Fingers rest before they leave; one that doesn't throws the page, and the next tap only stops that.
    const last = steps.at(-1) ?? [];
    if (steps.length > 1) {
      await page.waitForTimeout(150);
      await client.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: last });
    }
    await client.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  };
  const photoWidth = async () =>
    (await page.getByRole("img", { name: "photo_A.png" }).boundingBox())?.width ?? 0;

  test("a box is drawn, moved and resized", async () => {
    await page.getByRole("button", { name: "Draw a box" }).tap();
    await touch([await on(page, 0.2, 0.2)], [await on(page, 0.3, 0.3)], [await on(page, 0.5, 0.6)]);
    const [left, top, width, height] = await box(page);
    expect(width).toBeGreaterThan(WIDTH * 0.2);
    await touch([await on(page, 0.35, 0.4)], [await on(page, 0.4, 0.4)], [await on(page, 0.55, 0.4)]);
    const moved = await box(page);
    expect(moved[0]).toBeGreaterThan(left + WIDTH * 0.1);
    expect(moved.slice(1)).toEqual([top, width, height]);
    await touch([await on(page, moved[0] / WIDTH, top / HEIGHT)], [await on(page, 0.1, 0.05)]);
    expect((await box(page))[2]).toBeGreaterThan(width + 10);
    await page.getByRole("button", { name: "Remove box 1" }).tap();
    await expect.poll(() => boxes(page)).toEqual([]);
  });

  test("two fingers and a double tap look closer, one finger looks around", async () => {
    const before = await photoWidth();
    const at = async (apart: number) => [await on(page, 0.5 - apart, 0.5), await on(page, 0.5 + apart, 0.5)];
    await touch(await at(0.1), await at(0.15), await at(0.2));
    await expect.poll(photoWidth).toBeGreaterThan(before * 1.5);
    // What is under a finger follows it.
    const pane = page.locator(".pane");
    const scrolled = await pane.evaluate((element) => element.scrollLeft);
    const middle = await pane.boundingBox();
    if (!middle) throw new Error("no pane");
    const [x, y] = [middle.x + middle.width / 2, middle.y + middle.height / 2];
    await touch([{ x, y }], [{ x: x - 20, y }], [{ x: x - 60, y }]);
    await expect.poll(() => pane.evaluate((element) => element.scrollLeft)).toBeGreaterThan(scrolled + 20);
    await touch([{ x, y }]);
    await touch([{ x, y }]);
    await expect.poll(photoWidth).toBeCloseTo(before, 0);
    await touch([{ x, y }]);
    await touch([{ x, y }]);
    await expect.poll(photoWidth).toBeCloseTo(before * 2.5, 0);
  });

  test("everything that is pressed is large enough", async () => {
    await page.setViewportSize({ width: 320, height: 640 });
    await page.getByRole("button", { name: "Draw a box" }).press("Enter");
    await fakeAnswer(page, "What is in [1]?");
    const small = await page
      .getByRole("button")
      .or(page.getByRole("radio"))
      .evaluateAll((all) =>
        all
          .filter((one) => !one.classList.contains("phrase") && one.checkVisibility())
          .map((one) => ({ name: one.textContent.trim(), box: one.getBoundingClientRect() }))
          .filter(({ box }) => box.width < 24 || box.height < 24)
          .map(({ name }) => name),
      );
    expect(small).toEqual([]);
  });
});

test("buttons, keys and Ctrl with the wheel look closer; the wheel alone scrolls the page", async ({
  page,
}) => {
  await ready(page);
  await page.addStyleTag({ content: "groma-chat { height: 700px } body { height: 3000px }" });
  const width = async () => (await page.getByRole("img", { name: "photo_A.png" }).boundingBox())?.width ?? 0;
  const before = await width();
  await page.getByRole("button", { name: "Zoom in" }).click();
  await expect.poll(width).toBeCloseTo(before * 1.5, 0);
  await expect(page.getByRole("status")).toContainText("Zoom 150 per cent.");
  const pane = page.getByRole("group", { name: "The photo and its boxes" });
  const scrolled = () => pane.evaluate((element) => element.scrollTop);
  const top = await scrolled();
  await pane.press("ArrowDown");
  await expect.poll(scrolled, "arrows look around").toBeGreaterThan(top);
  await page.getByRole("button", { name: "Zoom out" }).click();
  await expect(page.getByRole("button", { name: "Zoom out" })).toBeDisabled();
  expect(await width()).toBeCloseTo(before, 0);
  const corner = await on(page, 0.25, 0.25);
  await page.mouse.move(corner.x, corner.y);
  await page.keyboard.down("Control");
  await page.mouse.wheel(0, -300);
  await page.keyboard.up("Control");
  await expect.poll(width).toBeGreaterThan(before * 2);
  const after = await on(page, 0.25, 0.25);
  expect(
    Math.hypot(after.x - corner.x, after.y - corner.y),
    "what is under the pointer stays there",
  ).toBeLessThan(3);
  await page.getByRole("listbox").locator("[tabindex='0']").focus();
  await page.keyboard.press("0");
  await expect.poll(width).toBeCloseTo(before, 0);
  await page.mouse.wheel(0, 200);
  await expect.poll(() => page.evaluate(() => scrollY)).toBeGreaterThan(0);
});

test("a screen reader hears whole pieces, each once, and never tokens", async ({ page }) => {
  await ready(page);
  await page.evaluate(() => {
    const region = document.querySelector("groma-chat")?.shadowRoot?.querySelector("[role=status]");
    if (!region) throw new Error("no live region");
    const heard: string[] = [];
    new MutationObserver((records) => {
      for (const { addedNodes } of records)
        for (const node of addedNodes) if (node instanceof HTMLElement) heard.push(node.innerText);
    }).observe(region, { childList: true });
    Object.assign(globalThis, { heard });
  });
  await fakeAnswer(page);
  expect(await page.evaluate(() => (globalThis as never as { heard: string[] }).heard)).toEqual([
    "A woman, regions 0, 1",
    "in",
    "an orange suit, region 5",
    "stands before",
    "a flag, region 3",
    "and",
    "a model of a space shuttle, regions 2, 6",
    ". She smiles at the camera.",
    "End of the answer.",
  ]);
  await expect(page.getByRole("log")).toHaveAttribute("aria-live", "off");
});

test("nothing jumps while an answer grows", async ({ page }) => {
  await ready(page);
  await page.evaluate(() => {
    const shifts: number[] = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) shifts.push((entry as unknown as { value: number }).value);
    }).observe({ type: "layout-shift" });
    Object.assign(globalThis, { shifts });
  });
  await page.getByRole("radio", { name: "Ask" }).click();
  await fakeAnswer(page);
  const sum = await page.evaluate(() =>
    (globalThis as never as { shifts: number[] }).shifts.reduce((all, one) => all + one, 0),
  );
  // What the browser's own guidance calls good is 0.1.
  expect(sum).toBeLessThan(0.05);
});

test("photo, boxes and answer print", async ({ page }) => {
  await ready(page);
  for (let at = 0; at < 4; at++) await fakeAnswer(page, `Question ${at + 1}?`);
  await page.emulateMedia({ media: "print" });
  const photo = page.getByRole("img", { name: "photo_A.png" });
  await expect(photo).toBeVisible();
  expect((await photo.boundingBox())?.height).toBeGreaterThan(100);
  await expect(page.getByRole("option", { name: /^Region 3: a flag/ })).toBeVisible();
  for (const article of await page.getByRole("article").all()) await expect(article).toBeVisible();
  for (const name of ["Ask", "Draw a box", "New conversation", "Zoom in"])
    await expect(page.getByRole("button", { name, exact: true })).toBeHidden();
  const cut = await page.getByRole("log").evaluate((log) => log.scrollHeight - log.clientHeight);
  expect(cut, "nothing of the conversation is cut off").toBeLessThanOrEqual(0);
  const end = await page.getByText("24 tokens").last().boundingBox();
  const page2 = await page.evaluate(() => document.documentElement.scrollHeight);
  expect((end?.y ?? 0) + (end?.height ?? 0)).toBeLessThanOrEqual(page2);
});

/** Where things of the photo are, in shares of it. */
async function places(options: Locator): Promise<string[]> {
  return options.evaluateAll((all) =>
    all.map((one) => {
      const frame = one.closest(".frame")?.getBoundingClientRect();
      const { left, top } = one.getBoundingClientRect();
      if (!frame) return "";
      return `${one.ariaLabel} ${((left - frame.left) / frame.width).toFixed(2)} ${((top - frame.top) / frame.height).toFixed(2)}`;
    }),
  );
}

test("from right to left the photo keeps its sides; with reduced motion nothing moves", async ({ page }) => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  await ready(page);
  await fakeAnswer(page);
  const options = page.getByRole("option");
  const before = await places(options);
  await page.evaluate(() => (document.documentElement.dir = "rtl"));
  expect(await places(options)).toEqual(before);
  const [talk, stage] = [
    page.getByRole("group", { name: "Conversation" }),
    page.getByRole("group", { name: "Photo", exact: true }),
  ];
  expect((await talk.boundingBox())?.x).toBeLessThan((await stage.boundingBox())?.x ?? 0);
  expect(await faults(page)).toEqual([]);
  await page.getByRole("textbox", { name: "Ask" }).fill("Who?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Stop" })).toBeVisible();
  const moving = await page.locator("groma-chat").evaluate((chat) => chat.shadowRoot?.getAnimations().length);
  expect(moving).toBe(0);
});
