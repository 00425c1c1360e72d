/** The kernels in a browser: each compiles without a word, and a tiny model answers as the command line does. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { groma, PACKS, ROOT } from "./packs.js";
import { choosePhoto, expect, load, looked, PHOTO, test } from "./site.js";

interface Kernel {
  readonly name: string;
  readonly wgsl: string;
}

test("compiles every kernel without a message", async ({ page, site }) => {
  // Left by the Rust tests (tests/native/kernels/shaders.rs), which run before these.
  const kernels = JSON.parse(readFileSync(join(ROOT, ".cache", "kernels.json"), "utf8")) as Kernel[];
  expect(kernels.length).toBeGreaterThan(100);
  await page.goto(site.page());
  const said = await page.evaluate(async (all) => {
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter?.requestDevice();
    if (!device) return ["no device"];
    const words: string[] = [];
    for (const { name, wgsl } of all) {
      const module = device.createShaderModule({ code: wgsl });
      for (const { type, message } of (await module.getCompilationInfo()).messages)
        words.push(`${name}: ${type}: ${message}`);
      try {
        await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
      } catch (e) {
        words.push(`${name}: ${String(e)}`);
      }
    }
    device.destroy();
    return words;
  }, kernels);
  expect(said).toEqual([]);
});

test("answers on WebGPU as the command line does", async ({ page, site }) => {
  const args = ["describe", PHOTO, "--json", "--quiet", "--device", "gpu", "--max-tokens", "24"];
  const native = JSON.parse(execFileSync(groma, [...args, "--model", join(PACKS, "tiny")]).toString()) as {
    tokens: number[];
  };
  await page.goto(site.page({ device: "gpu" }));
  const result = page.evaluate(
    () =>
      new Promise<number[]>((done) => {
        const chat = document.querySelector("groma-chat");
        if (chat) chat.maxTokens = 24;
        chat?.addEventListener("groma-answer", ({ detail }) => done([...detail.result.tokens]), {
          once: true,
        });
      }),
  );
  await choosePhoto(page);
  await load(page);
  await looked(page);
  await page.getByRole("button", { name: "Describe this photo" }).click();
  expect(await result).toEqual(native.tokens);
});
