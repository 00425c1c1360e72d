/** The built page without a network, as an installed app, and when a newer version of it appears. */

import {
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  existsSync,
  readdirSync,
  renameSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base, type Page } from "@playwright/test";
import { buildServiceWorker } from "../../scripts/offline.mjs";
import { serve } from "../../scripts/serve.mjs";
import { makePacks, PACKS, ROOT } from "./packs.js";
import { ask, choosePhoto, expect, load, looked, PHOTO } from "./site.js";

/** A copy of the built page that can be changed and switched off. */
interface Copy {
  readonly dir: string;
  readonly url: string;
  readonly stop: () => void;
}

const test = base.extend<{ copy: Copy }>({
  // eslint-disable-next-line no-empty-pattern
  copy: async ({}, use) => {
    makePacks();
    const dir = mkdtempSync(join(tmpdir(), "groma-page-"));
    for (const name of ["index.html", "manifest.webmanifest", "service-worker.js", "assets", "icons"]) {
      cpSync(join(ROOT, "dist", name), join(dir, name), { recursive: true });
    }
    cpSync(join(PACKS, "tiny"), join(dir, "models", "groma-s"), { recursive: true });
    cpSync(PHOTO, join(dir, "samples", "a.png"));
    const sample = { file: "a.png", alt: "A test picture", credit: "Groma, Apache-2.0" };
    writeFileSync(join(dir, "samples", "samples.json"), JSON.stringify([sample]));
    const { url, close } = await serve({ dir, base: "/deep/down/" });
    await use({ dir, url, stop: close });
    close();
    rmSync(dir, { recursive: true });
  },
});

/** Waits until the page's own worker answers for it. */
function controlled(page: Page): Promise<void> {
  return page.evaluate(async () => {
    await navigator.serviceWorker.ready;
    if (navigator.serviceWorker.controller) return;
    await new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done));
  });
}

test("the second visit needs no network at all", async ({ page, context, copy }) => {
  await page.goto(`${copy.url}?device=cpu`);
  await load(page);
  await expect(page.getByRole("button", { name: "Ask", exact: true })).toBeVisible();
  await controlled(page);
  await page.close();
  copy.stop();
  await context.setOffline(true);
  const again = await context.newPage();
  await again.goto(`${copy.url}?device=cpu`);
  const sample = again.getByRole("img", { name: "A test picture" });
  await expect(sample).toBeVisible();
  // Rejects where there are no pixels.
  await sample.evaluate((image) => (image as HTMLImageElement).decode());
  await choosePhoto(again);
  // The model is here: nothing is asked, or one press.
  const gate = again.getByRole("button", { name: /^(Load|Start)/ });
  await expect(gate.or(again.getByText(/^\d+ regions?$/)).first()).toBeVisible();
  if (await gate.isVisible()) await gate.click();
  await looked(again);
  await ask(again, "What is this?");
});

test("it can be installed", async ({ page, copy }) => {
  await page.goto(copy.url);
  await controlled(page);
  const cdp = await page.context().newCDPSession(page);
  const { errors, data, url } = await cdp.send("Page.getAppManifest");
  expect(errors).toEqual([]);
  expect(url).toBe(`${copy.url}manifest.webmanifest`);
  const manifest = JSON.parse(data ?? "") as { icons: { src: string; sizes: string }[]; start_url: string };
  expect(new URL(manifest.start_url, url).href).toBe(copy.url);
  const sizes = await page.evaluate(
    (icons) =>
      Promise.all(
        icons.map(async (src) => {
          const image = new Image();
          image.src = src;
          await image.decode();
          return image.naturalWidth;
        }),
      ),
    manifest.icons.map(({ src }) => new URL(src, url).href),
  );
  manifest.icons.forEach(({ sizes: said }, at) => {
    if (said !== "any") expect(`${sizes[at]}x${sizes[at]}`).toBe(said);
  });
  const { installabilityErrors } = await cdp.send("Page.getInstallabilityErrors");
  expect(installabilityErrors.map(({ errorId }) => errorId).filter((id) => id !== "in-incognito")).toEqual(
    [],
  );
});

/** Another version of the page: its script has another name, its title another word. Gives the old script's name. */
async function publish(copy: Copy, title: string): Promise<string> {
  const assets = join(copy.dir, "assets");
  const script = readdirSync(assets).find((name) => /^index.*\.js$/.test(name)) ?? "";
  const fresh = `index-${title}.js`;
  const index = join(copy.dir, "index.html");
  renameSync(join(assets, script), join(assets, fresh));
  const html = readFileSync(index, "utf8")
    .replace(script, fresh)
    .replace(/<title>.*<\/title>/, `<title>${title}</title>`);
  writeFileSync(index, html);
  await buildServiceWorker(copy.dir);
  return script;
}

/** Looks for a newer version; gives whether one is announced within a while. */
function announced(page: Page): Promise<boolean> {
  return page.evaluate(async () => {
    const told = new Promise<boolean>((done) => {
      window.addEventListener("groma-update", (event) => {
        (window as unknown as { apply: () => void }).apply = (
          event as CustomEvent<{ apply: () => void }>
        ).detail.apply;
        done(true);
      });
      setTimeout(() => done(false), 4000);
    });
    const registration = await navigator.serviceWorker.ready;
    await registration.update().catch(() => undefined);
    return told;
  });
}

test("a newer version is told, waits to be wanted, and never mixes with the older one", async ({
  page,
  copy,
}) => {
  await page.goto(copy.url);
  await controlled(page);
  const before = await page.title();
  const script = await publish(copy, "Second");
  expect(await announced(page)).toBe(true);
  // Until somebody wants it, a visit gets the old version, all of it.
  const other = await page.context().newPage();
  await other.goto(copy.url);
  expect(await other.title()).toBe(before);
  await expect(other.getByRole("heading", { name: "Groma" }).first()).toBeVisible();
  await page.evaluate(() => (window as unknown as { apply: () => void }).apply());
  await expect(page).toHaveTitle("Second");
  // The other tab still runs the old version, whose files its host does not have any more.
  expect(existsSync(join(copy.dir, "assets", script))).toBe(false);
  const statusOf = () => other.evaluate(async (name) => (await fetch(`assets/${name}`)).status, script);
  expect(await statusOf()).toBe(200);
  // Nor does a third version take them away.
  await publish(copy, "Third");
  expect(await announced(page)).toBe(true);
  await page.evaluate(() => (window as unknown as { apply: () => void }).apply());
  await expect(page).toHaveTitle("Third");
  expect(await statusOf()).toBe(200);
  await other.reload();
  await expect(other).toHaveTitle("Third");
  // Once a page is alone, what nobody can need is gone.
  await other.close();
  await page.reload();
  await expect.poll(() => page.evaluate(async () => (await caches.keys()).length)).toBe(2);
});

test("a version that arrives in parts is not taken", async ({ page, copy }) => {
  await page.goto(copy.url);
  await controlled(page);
  const before = await page.title();
  await publish(copy, "Broken");
  // The host has the new list and not yet all of the new files.
  const index = join(copy.dir, "index.html");
  writeFileSync(index, readFileSync(index, "utf8").replace("Broken", "Half"));
  expect(await announced(page)).toBe(false);
  await page.reload();
  expect(await page.title()).toBe(before);
  unlinkSync(index);
  await page.reload();
  expect(await page.title()).toBe(before);
});
