import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { manifestText } from "../../scripts/manifest.mjs";

test("custom-elements.json says what the class says", async () => {
  const kept = readFileSync(new URL("../../custom-elements.json", import.meta.url), "utf8");
  expect(kept, "npm run manifest writes it anew").toBe(await manifestText());
});
