/** The element's mechanics, over a fake engine: no model is needed. */

import { expect, test, type Page } from "@playwright/test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./packs.js";
import { choosePhoto } from "./site.js";

const PAGE = "/tests/web/fixture/index.html";
const sample = join(ROOT, "dist", "samples", "astronaut.png");

async function ready(page: Page, query = "?cached"): Promise<void> {
  await page.goto(PAGE + query);
  await choosePhoto(page, existsSync(sample) ? sample : undefined);
  await expect(page.getByText("8 regions", { exact: true })).toBeVisible();
}

async function answered(page: Page): Promise<void> {
  await ready(page);
  await page.getByRole("textbox").fill("Who is on the photo?");
  await page.keyboard.press("Enter");
  await expect(page.getByText("24 tokens")).toBeVisible();
}

test("phrase and box point at each other", async ({ page }) => {
  await answered(page);
  const flag = page.getByRole("button", { name: "a flag region 3" });
  const box = page.getByRole("option", { name: /^Region 3/ });
  await flag.hover();
  await expect(box).toHaveAttribute("aria-selected", "true");
  await page.mouse.move(0, 0);
  await expect(box).toHaveAttribute("aria-selected", "false");
  await flag.focus();
  await expect(box).toHaveAttribute("aria-selected", "true");
  await flag.press("Escape");
  await flag.click();
  await page.mouse.move(0, 0);
  await expect(flag).toHaveAttribute("aria-pressed", "true");
  await expect(box).toHaveAttribute("aria-selected", "true");
  await box.focus();
  await expect(flag).toHaveClass(/active/);
});

test("the keyboard walks through the boxes", async ({ page }) => {
  await ready(page);
  const options = page.getByRole("option");
  await page.getByRole("listbox").locator("[tabindex='0']").focus();
  const names = new Set<string | null>();
  for (let at = 0; at < 8; at++) {
    names.add(
      await page.evaluate(
        () => document.querySelector("groma-chat")?.shadowRoot?.activeElement?.ariaLabel ?? null,
      ),
    );
    await page.keyboard.press("ArrowRight");
  }
  expect(names.size).toBe(await options.count());
});

test("what the model says is text", async ({ page }) => {
  await ready(page);
  const dialogs: string[] = [];
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  await page.getByRole("button", { name: "Describe this photo" }).click();
  await expect(page.locator(".answer").getByText("<img src=x onerror=alert(1)>")).toBeVisible();
  expect(dialogs).toEqual([]);
});

test("Stop keeps what was said", async ({ page }) => {
  await ready(page);
  await page.getByRole("textbox").fill("Who?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: /A woman/ })).toBeVisible();
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(page.getByText("Stopped", { exact: false }).first()).toBeVisible();
  await expect(page.getByRole("button", { name: /A woman/ })).toBeVisible();
  await expect(page.getByRole("textbox")).toBeEnabled();
});

test("a box is drawn by two clicks", async ({ page }) => {
  await ready(page);
  await page.getByRole("button", { name: "Draw a box" }).click();
  const frame = page.locator(".frame");
  await frame.click({ position: { x: 300, y: 90 } });
  await frame.click({ position: { x: 420, y: 200 } });
  await expect(page.getByText("box [1]")).toBeVisible();
});

test("a failed load says what to do", async ({ page }) => {
  await page.goto(`${PAGE}?fail`);
  await page.getByRole("button", { name: /^Load/ }).click();
  await expect(page.getByRole("alert")).toContainText("arrived damaged");
  await expect(page.getByRole("button", { name: "Try again" })).toBeVisible();
});
