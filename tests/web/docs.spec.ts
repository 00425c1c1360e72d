/** The documentation as it is served: guides, reference, and a figure that is alive. */

import { wrong } from "./looks.js";
import { ask, choosePhoto, expect, load, looked, test } from "./site.js";

test("shows guides and the reference", async ({ page, site }) => {
  await page.goto(new URL("docs/", site.url).href);
  await expect(page.getByRole("heading", { name: "Quick start" })).toBeVisible();
  await page.getByRole("link", { name: "Troubleshooting", exact: false }).first().click();
  await expect(page.getByRole("cell", { name: "device-lost" })).toBeVisible();
  await page.goto(new URL("docs/classes/engine.Groma.html", site.url).href);
  await expect(page.getByText("Whether the model is on this machine").first()).toBeVisible();
  await page.goto(new URL("docs/classes/element_groma-chat.GromaChat.html", site.url).href);
  await expect(page.getByText("A photo that can be asked about").first()).toBeVisible();
});

test("embeds a live figure, which waits for consent", async ({ page, site }) => {
  const fetched: string[] = [];
  page.on("request", (request) => fetched.push(request.url()));
  await page.goto(new URL("docs/live/", site.url).href);
  await expect(page.locator("groma-chat").getByRole("button", { name: /^(Load|Start)/ })).toBeVisible();
  await expect(page.locator("groma-chat").getByRole("img", { name: "A cup of coffee" })).toBeVisible();
  expect(fetched.filter((url) => url.includes(".gguf"))).toEqual([]);
});

test.describe("the live figure", () => {
  // The model and the samples are there where everything was built.
  test.use({ noise: [/Failed to load resource/] });

  test("answers in its page, where nothing bars the way", async ({ page, site }) => {
    await page.goto(new URL("docs/live/", site.url).href);
    await page
      .locator("groma-chat")
      .evaluate((chat, model) => chat.setAttribute("model", model), `${site.url}packs/tiny/`);
    const found = await wrong(page, "live figure");
    await choosePhoto(page);
    await load(page);
    await looked(page);
    await ask(page, "What is this?");
    found.push(...(await wrong(page, "live figure answered")));
    expect(found).toEqual([]);
  });
});
