/** What the element says before and after a download, and in which language. */

import { expect, test, type Locator } from "@playwright/test";
import { change, made, open, put } from "./embed-page.js";
import { fakeAnswer, regions } from "./fake-page.js";

test("where there is no memory a smaller model is offered, and the processor only where it has enough", async ({
  page,
}) => {
  await open(page, "?huge&gpu");
  await put(page, { src: "/photos/a.png", smaller: "/small" });
  await expect(page.getByText("It takes about 9.0 GB of memory", { exact: false })).toBeVisible();
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await expect(page.getByRole("alert")).toContainText("out-of-memory");
  await expect(page.getByRole("button", { name: "Use the processor" })).toHaveCount(0);
  await page.getByRole("button", { name: "Use the smaller model" }).click();
  // Nothing of it is downloaded before the reader agrees to that as well.
  await expect(page.getByRole("button", { name: "Load 15 MB" })).toBeVisible();
  expect(await made(page)).toEqual([1, 0]);
  expect(await change(page, (chat) => chat.model)).toBe("/small");
  await page.getByRole("button", { name: "Load 15 MB" }).click();
  await regions(page);
  // There is no smaller one than the smaller one itself, however its address is written.
  await open(page, "?huge&gpu");
  await put(page, { smaller: "/pack" });
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await expect(page.getByRole("button", { name: "Try again" })).toBeVisible();
  await expect(page.getByRole("button", { name: "Use the smaller model" })).toHaveCount(0);
  // Without a GPU a model for which the processor has no memory has no way on.
  await open(page, "?huge&nogpu");
  await put(page, { device: "gpu" });
  await expect(page.getByRole("alert")).toContainText("no-webgpu");
  await expect(page.getByRole("button", { name: "Use the processor" })).toHaveCount(0);
  await open(page, "?huge");
  await put(page);
  await expect(page.getByText("loading it will fail", { exact: false })).toBeVisible();
});

test("lang is the language of description, questions and answers; the element's own words are English", async ({
  page,
}) => {
  await open(page);
  await put(page, { src: "/photos/a.png", alt: "Ein Markt", load: "eager", lang: "de" });
  await regions(page);
  await fakeAnswer(page, "Wer ist das?");
  const lang = (place: Locator) => place.evaluate((e) => e.closest("[lang]")?.getAttribute("lang"));
  const image = page.getByRole("img", { name: "Ein Markt" });
  const field = page.getByRole("textbox", { name: "Ask" });
  const question = page.getByRole("article").getByText("Wer ist das?");
  const phrase = page.getByRole("button", { name: "a flag region 3" });
  const said = page.getByRole("status").getByText("a flag, region 3");
  for (const place of [image, field, question, phrase, said]) expect(await lang(place)).toBe("de");
  const own = [page.getByText("24 tokens"), page.getByRole("button", { name: "New photo" })];
  own.push(page.getByRole("status").getByText("End of the answer."));
  for (const place of own) expect(await lang(place)).toBe("en");
  await change(page, (chat) => (chat.lang = "fr"));
  await expect(page.locator("groma-chat")).toHaveAttribute("lang", "fr");
  expect(await lang(question)).toBe("fr");
  await change(page, (chat) => chat.removeAttribute("lang"));
  await expect.poll(() => lang(question)).toBe("en");
});
