/** Every look that a state is seen in, and what is wrong with it there. */

import type { Page } from "@playwright/test";
import { faults } from "./fake-page.js";

type Looks = Parameters<Page["emulateMedia"]>[0] & { readonly width: number };

const SCHEMES = {
  light: { colorScheme: "light", forcedColors: "none" },
  dark: { colorScheme: "dark", forcedColors: "none" },
  forced: { colorScheme: "dark", forcedColors: "active" },
} as const;
const WIDTHS = { phone: 320, desk: 1280, wall: 2560 } as const;

const LOOKS: Readonly<Record<string, Looks>> = Object.fromEntries(
  Object.entries(SCHEMES).flatMap(([scheme, media]) =>
    Object.entries(WIDTHS).map(([place, width]) => [`${scheme}-${place}`, { ...media, width }]),
  ),
);

/** What is wrong with a state, in every look; each leaves a screenshot. */
export async function wrong(page: Page, state: string): Promise<string[]> {
  const found: string[] = [];
  for (const [look, media] of Object.entries(LOOKS)) {
    const { width } = media;
    await page.emulateMedia(media);
    await page.setViewportSize({ width, height: width === 320 ? 640 : 800 });
    for (const fault of await faults(page)) found.push(`${state}, ${look}: ${fault}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) found.push(`${state}, ${look}: ${wide} pixels wide`);
    await page.screenshot({ path: `test-results/${state.replaceAll(" ", "-")}-${look}.png` });
  }
  await page.emulateMedia({ colorScheme: "light", forcedColors: "none" });
  await page.setViewportSize({ width: 1280, height: 800 });
  return found;
}
