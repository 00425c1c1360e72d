/** The page over the fake engine: everything around the element, without a model. */

import { readFile } from "node:fs/promises";
import { expect, type Page } from "@playwright/test";
import AxeBuilder from "axe-core";
import { PHOTO } from "./site.js";

const SAMPLES = [
  { file: "a.png", alt: "A test picture", credit: "Groma, Apache-2.0" },
  { file: "b.png", alt: "Another picture", credit: "Groma, Apache-2.0" },
];

/** Opens the page; `query` is its address's, and the fake's. */
export async function openPage(page: Page, query = "?cached"): Promise<void> {
  await page.route(
    (url) => url.pathname === "/",
    async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replace(
        /<script type="module" src="[^"]*page\/main\.ts[^"]*"/,
        '<script type="module" src="/tests/web/fixture/main.ts"></script>$&',
      );
      await route.fulfill({ response, body });
    },
  );
  await page.route("**/samples/samples.json", (route) => route.fulfill({ json: SAMPLES }));
  const photo = await readFile(PHOTO);
  await page.route(/samples\/[ab]\.png$/, (route) =>
    route.fulfill({ body: photo, contentType: "image/png" }),
  );
  await page.goto(`/${query}`);
}

/** Waits until the fake has found its regions. */
export async function regions(page: Page): Promise<void> {
  await expect(page.getByText("8 regions", { exact: true })).toBeVisible();
}

/** Asks the fake and waits for the end of its answer. */
export async function fakeAnswer(page: Page, question = "Who is on the photo?"): Promise<void> {
  const ends = page.getByText("24 tokens");
  const before = await ends.count();
  await page.getByRole("textbox", { name: "Ask" }).fill(question);
  await page.keyboard.press("Enter");
  await expect(ends).toHaveCount(before + 1);
}

/** What axe finds, by rule. */
export async function faults(page: Page): Promise<string[]> {
  // Not by a script in the page, which a strict policy would forbid.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AxeBuilder.source);
  return page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof AxeBuilder };
    const { violations } = await axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      // Forced colours are the reader's own, and are not the ones that a page's styles say.
      rules: { "color-contrast": { enabled: !matchMedia("(forced-colors: active)").matches } },
    });
    return violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" | ")}`);
  });
}
