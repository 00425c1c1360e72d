/** The built page over the real engine with a tiny model: right mechanics, meaningless words. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKS } from "./packs.js";
import { ask, choosePhoto, expect, kept, load, looked, test } from "./site.js";

interface Description {
  readonly total: number;
  readonly files: readonly {
    readonly parts: readonly { readonly name: string; readonly sha256: string }[];
  }[];
}

const description = () => JSON.parse(readFileSync(join(PACKS, "tiny", "model.json"), "utf8")) as Description;
const parts = () => description().files.flatMap((file) => file.parts);

test("says what it would download and downloads nothing before", async ({ page, site }) => {
  await page.goto(site.page());
  await expect(page.getByRole("heading", { name: "Load the model" })).toBeVisible();
  await expect(page.getByRole("button", { name: /Load \d/ })).toBeVisible();
  expect(site.parts).toEqual([]);
  await page.screenshot({ path: "test-results/gate.png" });
});

test("says that it uses the processor where the adapter is a software one", async ({ page, site }) => {
  await page.goto(site.page({ device: "auto" }));
  await expect(page.getByText(/software one, so the model runs directly on the processor/)).toBeVisible();
});

test("answers about a photo, again and again", async ({ page, site }) => {
  await page.goto(site.page());
  await choosePhoto(page);
  await load(page);
  await looked(page);
  const boxes = page.getByRole("option");
  expect(await boxes.count()).toBeGreaterThan(0);
  await ask(page, "What is this?");
  await ask(page, "And what else?");
  await expect(page.getByRole("article")).toHaveCount(2);
  for (const answer of await page.locator(".answer").all()) await expect(answer).not.toBeEmpty();
  await page.screenshot({ path: "test-results/answered-tiny.png" });
  await page.getByRole("button", { name: "New conversation" }).click();
  await expect(page.getByRole("article")).toHaveCount(0);
});

test("answers about a box that was drawn", async ({ page, site }) => {
  await page.goto(site.page());
  await choosePhoto(page);
  await load(page);
  await looked(page);
  const frame = await page.locator(".frame").boundingBox();
  if (!frame) throw new Error("no photo");
  await page.mouse.move(frame.x + frame.width * 0.2, frame.y + frame.height * 0.2);
  await page.mouse.down();
  await page.mouse.move(frame.x + frame.width * 0.7, frame.y + frame.height * 0.6, { steps: 4 });
  await page.mouse.up();
  await expect(page.getByText("box [1]")).toBeVisible();
  await ask(page, "What is in [1]?");
  await page.getByRole("radio", { name: "Describe box" }).click();
  await expect(page.getByRole("button", { name: "Describe", exact: true })).toBeDisabled();
});

test("loads a second time without its host", async ({ page, site }) => {
  await page.goto(site.page());
  await load(page);
  await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
  expect(await kept(page, "parts")).toEqual([...new Set(parts().map((part) => part.sha256))].sort());
  site.requests.length = 0;
  await page.reload();
  await expect(page.getByText("no download")).toBeVisible();
  await choosePhoto(page);
  await looked(page);
  expect(site.parts).toEqual([]);
});

test.describe("when the host fails", () => {
  test.use({ noise: [/Failed to load resource/] });

  test("loads a second time with the host gone", async ({ page, site }) => {
    await page.goto(site.page());
    await load(page);
    await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
    site.offline = true;
    await page.reload();
    await choosePhoto(page);
    await looked(page);
  });

  test("a damaged part is reported, and not kept", async ({ page, site }) => {
    const [part] = parts();
    if (!part) throw new Error("no part");
    site.fates.push({ file: part.name, fate: "damage", times: 2 });
    await page.goto(site.page());
    await load(page);
    const alert = page.getByRole("alert");
    await expect(alert).toContainText("arrived damaged");
    await expect(alert).toContainText("part-corrupt");
    expect(await kept(page, "parts")).not.toContain(part.sha256);
    // What began to arrive is noted, so that it can be listed and deleted.
    expect(await kept(page, "models")).toHaveLength(1);
    await page.screenshot({ path: "test-results/corrupt.png" });
    // It was the host; once that is whole again, so is the page.
    await page.getByRole("button", { name: "Try again" }).click();
    await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
    expect(await kept(page, "parts")).toContain(part.sha256);
  });

  test("a part that is cut goes on where it stopped", async ({ page, site }) => {
    const [part] = parts();
    if (!part) throw new Error("no part");
    site.fates.push({ file: part.name, fate: "cut", times: 1 });
    await page.goto(site.page());
    await load(page);
    await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
    const asked = site.parts.filter(({ path }) => path.endsWith(part.name));
    expect(asked).toHaveLength(2);
    expect(asked[1]?.range).toMatch(/^bytes=[1-9]\d*-$/);
  });

  test("a missing part is reported with its name", async ({ page, site }) => {
    const [part] = parts();
    if (!part) throw new Error("no part");
    site.fates.push({ file: part.name, fate: "missing", times: 9 });
    await page.goto(site.page());
    await load(page);
    await expect(page.getByRole("alert")).toContainText(part.name);
    await expect(page.getByRole("alert")).toContainText("part-missing");
  });
});

test("a download can be given up, and goes on later", async ({ page, site }) => {
  const [part] = parts();
  if (!part) throw new Error("no part");
  site.fates.push({ file: part.name, fate: "slow", times: 1 });
  await page.goto(site.page());
  await load(page);
  await expect(page.getByRole("progressbar")).toBeVisible();
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.getByRole("button", { name: /^Load/ })).toBeVisible();
  await load(page);
  await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
});

test("a file that is no picture is an answer, not a crash", async ({ page, site }) => {
  await page.goto(site.page());
  await load(page);
  await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
  await page
    .locator("input[type=file]")
    .setInputFiles({ name: "x.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await expect(page.getByRole("alert")).toContainText(/picture/);
  await choosePhoto(page);
  await looked(page);
});

test("a sample is a photo like any other", async ({ page, site }) => {
  await page.goto(site.page());
  await load(page);
  await page.getByRole("button", { name: "A tabby cat" }).click();
  await looked(page);
  await expect(page.getByRole("img", { name: "A tabby cat" })).toBeVisible();
});

test("dialogs and pictures keep to the strict policy", async ({ page, site }) => {
  await page.goto(site.page());
  await choosePhoto(page);
  await expect(page.getByRole("img", { name: "photo_A.png" })).toBeVisible();
  await page.getByRole("button", { name: "Share" }).click();
  for (const name of ["Save as PNG", "Save as SVG"]) {
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name }).click(),
    ]);
    expect(download.suggestedFilename()).toMatch(/^groma\.(png|svg)$/);
  }
  await page.getByRole("button", { name: "Close" }).click();
  for (const name of ["Camera", "Model", "About"]) {
    await page.getByRole("button", { name, exact: true }).click();
    await expect(page.getByRole("dialog")).toBeVisible();
    await page.keyboard.press("Escape");
  }
});
