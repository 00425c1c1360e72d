/** The documentation as it is served: guides, reference, and a figure that is alive. */

import { expect, test } from "./site.js";

test("shows guides and the reference", async ({ page, site }) => {
  await page.goto(new URL("docs/", site.url).href);
  await expect(page.getByRole("heading", { name: "Quick start" })).toBeVisible();
  await page.getByRole("link", { name: "Troubleshooting", exact: false }).first().click();
  await expect(page.getByRole("cell", { name: "device-lost" })).toBeVisible();
  await page.goto(new URL("docs/classes/index.Groma.html", site.url).href);
  await expect(page.getByText("Whether the model is on this machine").first()).toBeVisible();
});

test("embeds a live figure, which waits for consent", async ({ page, site }) => {
  const fetched: string[] = [];
  page.on("request", (request) => fetched.push(request.url()));
  await page.goto(new URL("docs/live/", site.url).href);
  await expect(page.locator("groma-chat").getByRole("button", { name: /^(Load|Start)/ })).toBeVisible();
  await expect(page.locator("groma-chat").getByRole("img", { name: "A cup of coffee" })).toBeVisible();
  expect(fetched.filter((url) => url.includes(".gguf"))).toEqual([]);
});
