/** The built page on a server that can break things, under a base path that is not the root. */

import { readFile, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { test as base, expect, type Page } from "@playwright/test";
import { serve } from "../../scripts/serve.mjs";
import { makePacks, PACKS, ROOT } from "./packs.js";

/** What happens to a file of a pack. */
export type Fate = "damage" | "cut" | "held" | "missing" | "slow" | "refused" | "whole";

const BASE = "/some/where/";

/** A served page. */
export class Site {
  readonly requests: { path: string; range: string | undefined }[] = [];
  /** What happens to a file, by the end of its name: each entry once unless it is repeated. */
  readonly fates: { file: string; fate: Fate; times: number }[] = [];
  /** Pages besides the built ones, by their path under the base. */
  readonly pages = new Map<string, string>();
  /** Answers of which only half was sent: what becomes of them is the test's. */
  readonly held: ServerResponse[] = [];
  /** No pack is served at all. */
  offline = false;
  url = "";
  close: () => void = () => undefined;

  static async open(): Promise<Site> {
    makePacks();
    const site = new Site();
    const { url, close } = await serve({ dir: join(ROOT, "dist"), base: BASE, hook: site.#hook });
    site.url = url;
    site.close = close;
    return site;
  }

  /** The address of the page with a tiny model. */
  page(query: Record<string, string> = {}): string {
    const url = new URL(this.url);
    for (const [key, value] of Object.entries({ model: "packs/tiny/", device: "cpu", ...query })) {
      url.searchParams.set(key, value);
    }
    return url.href;
  }

  /** Requests for files of packs, without their descriptions. */
  get parts(): { path: string; range: string | undefined }[] {
    return this.requests.filter(({ path }) => path.includes("/packs/") && !path.endsWith("model.json"));
  }

  readonly #hook = async (
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
  ): Promise<boolean> => {
    const extra = this.pages.get(path.slice(BASE.length));
    if (extra !== undefined) {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(extra);
      return true;
    }
    if (!path.startsWith(`${BASE}packs/`)) return false;
    const asked = request.headers.range;
    this.requests.push({ path, range: asked });
    const file = join(PACKS, path.slice(`${BASE}packs/`.length));
    const fate = this.#fate(path);
    // A host that knows no ranges sends everything.
    const range = fate === "whole" ? undefined : asked;
    if (fate === "refused") {
      response.writeHead(416).end();
      return true;
    }
    if (this.offline) {
      response.destroy();
      return true;
    }
    if (fate === "missing" || !(await stat(file).catch(() => undefined))) {
      response.writeHead(404).end();
      return true;
    }
    const all = await readFile(file);
    const start = range ? Number(/bytes=(\d+)-/.exec(range)?.[1]) : 0;
    const body = Buffer.from(all.subarray(start));
    if (fate === "damage") body[body.length >> 1] = (body[body.length >> 1] ?? 0) ^ 1;
    response.writeHead(range ? 206 : 200, { "content-length": body.length });
    if (fate === "held") {
      response.write(body.subarray(0, body.length >> 1));
      this.held.push(response);
      return true;
    }
    if (fate === "cut" || fate === "slow") {
      // A cut comes when the browser has had time to read what was sent: a reset takes what waits unread along.
      response.write(body.subarray(0, body.length >> 1), () => {
        if (fate === "cut") setTimeout(() => response.destroy(), 1000);
      });
      if (fate === "cut") return true;
      setTimeout(() => response.end(body.subarray(body.length >> 1)), 4000);
    } else response.end(body);
    return true;
  };

  #fate(path: string): Fate | undefined {
    const found = this.fates.find(({ file, times }) => path.endsWith(file) && times > 0);
    if (found) found.times--;
    return found?.fate;
  }
}

/** Tests get a site, and a page whose console must stay clean. */
export const test = base.extend<{ site: Site; noise: RegExp[] }>({
  // Playwright wants a destructured first argument even where nothing is taken.
  // eslint-disable-next-line no-empty-pattern
  site: async ({}, use) => {
    const site = await Site.open();
    await use(site);
    site.close();
  },
  /** What a test that breaks things expects the browser to say. */
  noise: [[], { option: true }],
  page: async ({ page, noise }, use) => {
    const said: string[] = [];
    page.on("console", (message) => {
      const text = message.text();
      if (["error", "warning"].includes(message.type()) && !noise.some((n) => n.test(text))) said.push(text);
    });
    page.on("pageerror", (error) => said.push(error.message));
    await use(page);
    expect(said, "the console stays clean").toEqual([]);
  },
});

/** A photo of the goldens, by its path. */
export const PHOTO = join(ROOT, "tests", "golden", "tiny", "photo_A.png");

/** Chooses a photo as a person does. */
export async function choosePhoto(page: Page, path = PHOTO): Promise<void> {
  await page.locator("input[type=file]").setInputFiles(path);
}

/** Agrees to the download. */
export async function load(page: Page): Promise<void> {
  await page.getByRole("button", { name: /^(Load|Start)/ }).click();
}

/** Waits until the photo was looked at. */
export async function looked(page: Page): Promise<void> {
  await expect(page.getByText(/^\d+ regions?$/)).toBeVisible();
}

/** Asks and waits for the end. */
export async function ask(page: Page, question: string): Promise<void> {
  const before = await page.locator(".foot").count();
  await page.getByRole("textbox", { name: "Ask" }).fill(question);
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await expect(page.locator(".foot")).toHaveCount(before + 1);
}

/** Names of what is kept in the browser. */
export function kept(page: Page, folder: "parts" | "models"): Promise<string[]> {
  return page.evaluate(async (name) => {
    const root = await navigator.storage.getDirectory();
    try {
      const groma = await root.getDirectoryHandle("groma");
      const directory = await groma.getDirectoryHandle(name);
      const names: string[] = [];
      for await (const key of (directory as unknown as { keys(): AsyncIterable<string> }).keys())
        names.push(key);
      return names.sort();
    } catch {
      return [];
    }
  }, folder);
}

export { expect };
