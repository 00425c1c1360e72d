/** A bare page with the JavaScript API and a photo at hand, as a page of someone else's has them: the package's own file. */

import { readFileSync } from "node:fs";
import type { Page } from "@playwright/test";
import type * as Api from "../../www/engine/index.js";
import { PHOTO, type Site } from "./site.js";

declare global {
  interface Window {
    api: typeof Api;
    photo: Blob;
    model: string;
  }
}

/** Opens the page; `window.model` is the tiny model. */
export async function openApi(page: Page, site: Site): Promise<void> {
  site.pages.set("blank.html", '<!doctype html><link rel="icon" href="data:,"><title>Blank</title>');
  await page.goto(`${site.url}blank.html`);
  await page.evaluate(
    async ({ api, bytes, model }) => {
      window.api = (await import(api)) as typeof Api;
      window.photo = new Blob([Uint8Array.from(bytes)], { type: "image/png" });
      window.model = model;
    },
    {
      api: `${site.url}groma/groma-web.js`,
      bytes: [...readFileSync(PHOTO)],
      model: `${site.url}packs/tiny/`,
    },
  );
}

export type { Api };
