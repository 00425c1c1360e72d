/** A page that embeds the element over a fake engine, as its author would. */

import { readFile } from "node:fs/promises";
import type { Page } from "@playwright/test";
import type { GromaChat } from "../../www/element/chat.js";
import type { Embed } from "./fixture/embed.js";
import { PHOTO } from "./site.js";

declare global {
  var embed: Embed;
  var seen: { name: string; detail: unknown; at: string }[];
}

/** Opens the page without an element. */
export async function open(page: Page, query = "?cached"): Promise<void> {
  const photo = await readFile(PHOTO);
  await page.route(/\/photos\/.*\.png$/, (route) => route.fulfill({ body: photo, contentType: "image/png" }));
  await page.goto(`/tests/web/fixture/embed.html${query}`);
  await page.waitForFunction(() => "embed" in globalThis);
}

/** Puts an element with these attributes and contents into the page. */
export async function put(page: Page, attributes: Record<string, string> = {}, text = ""): Promise<void> {
  await page.evaluate(
    ([wanted, content]) => {
      if (!customElements.get("groma-chat")) embed.define();
      const chat = document.createElement("groma-chat");
      chat.maker = embed.maker;
      for (const [name, value] of Object.entries({ model: "/pack/", ...wanted }))
        chat.setAttribute(name, value);
      chat.innerHTML = content;
      document.querySelector("#here")?.append(chat);
    },
    [attributes, text] as const,
  );
}

/** Changes the element. */
export function change(page: Page, what: (chat: GromaChat) => unknown): Promise<unknown> {
  return page.locator("groma-chat").first().evaluate(what);
}

/** How many engines were made, and how many of them live. */
export const made = (page: Page) => page.evaluate(() => [embed.maker.made, embed.maker.alive]);
