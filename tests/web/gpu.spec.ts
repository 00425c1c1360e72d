/** The kernels in a browser: each compiles without a word, and a tiny model answers as the command line does. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { openApi, type Api } from "./api-page.js";
import { seen, watchGpu } from "./gpu-watch.js";
import { groma, PACKS, ROOT } from "./packs.js";
import { choosePhoto, expect, load, looked, PHOTO, test } from "./site.js";

interface Kernel {
  readonly name: string;
  readonly wgsl: string;
  /** Bytes that a workgroup shares. */
  readonly shared: number;
}

test("compiles every kernel without a message", async ({ page, site }) => {
  // Left by the Rust tests (tests/native/kernels/shaders.rs), which run before these.
  const kernels = JSON.parse(readFileSync(join(ROOT, ".cache", "kernels.json"), "utf8")) as Kernel[];
  expect(kernels.length).toBeGreaterThan(100);
  await page.goto(site.page());
  const said = await page.evaluate(async (all) => {
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) return ["no adapter"];
    const { maxComputeWorkgroupStorageSize } = adapter.limits;
    const device = await adapter.requestDevice({ requiredLimits: { maxComputeWorkgroupStorageSize } });
    const words: string[] = [];
    for (const { name, wgsl, shared } of all) {
      // Only what shares more than every device gives may be too much for this one.
      if (shared > 16384 && shared > maxComputeWorkgroupStorageSize) continue;
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

/** The first tokens of a description by the command line. */
function native(pack: string, count: number): number[] {
  const args = ["describe", PHOTO, "--json", "--quiet", "--device", "gpu", "--max-tokens", String(count)];
  const said = execFileSync(groma, [...args, "--model", join(PACKS, pack)]).toString();
  return (JSON.parse(said) as { tokens: number[] }).tokens;
}

test("answers on WebGPU as the command line does", async ({ page, site }) => {
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
  expect(await result).toEqual(native("tiny", 24));
});

/** The first tokens of a description by the JavaScript API. */
function described(
  page: Page,
  pack: string,
  gpu: Api.DebugGpu,
  maxTokens: number,
): Promise<readonly number[]> {
  return page.evaluate(
    async ([name, debug, most]) => {
      const model = new URL(`../${name}/`, window.model);
      const groma = await window.api.Groma.create({ model, device: "gpu", debug: { gpu: debug } });
      const photo = await groma.open(window.photo);
      return (await photo.describe({ maxTokens: most }).done).tokens;
    },
    [pack, gpu, maxTokens] as const,
  );
}

test.describe("adapters differ, answers don't", () => {
  const KIB = 1 << 10;
  const MIB = 1 << 20;

  test("a device with everything that the adapter has", async ({ page, site }) => {
    await watchGpu(page, { everything: true });
    await openApi(page, site);
    expect(await described(page, "tiny", {}, 12)).toEqual(native("tiny", 12));
    const { devices } = await seen(page);
    // More than the guaranteed limits in every way that the next test takes away; no software adapter has f16.
    expect(devices).toHaveLength(1);
    expect(devices[0]?.binding).toBeGreaterThan(128 * MIB);
    expect(devices[0]?.workgroup).toBeGreaterThan(16 * KIB);
    expect(devices[0]?.buffers).toBeGreaterThan(8);
    expect(devices[0]?.features).toContain("subgroups");
  });

  // With the kernels of real adapters: they are the ones that share memory within a workgroup.
  test("128 MiB bindings, 16 KiB for a workgroup, 8 buffers, no f16, no subgroups", async ({
    page,
    site,
  }) => {
    await watchGpu(page);
    await openApi(page, site);
    const gpu = { defaultLimits: true, kernels: "hardware" } as const;
    expect(await described(page, "tiny", gpu, 12)).toEqual(native("tiny", 12));
    const { devices } = await seen(page);
    expect(devices).toEqual([
      { binding: 128 * MIB, workgroup: 16 * KIB, buffers: 8, features: expect.any(Array) as string[] },
    ]);
    // Newer browsers name what every device has a feature as well.
    expect(devices[0]?.features.filter((name) => name !== "core-features-and-limits")).toEqual([]);
  });

  test("bindings so small that tensors lie in several buffers", async ({ page, site }) => {
    await watchGpu(page);
    await openApi(page, site);
    const gpu = { defaultLimits: true, binding: 256 * KIB };
    expect(await described(page, "tiny3-f32", gpu, 12)).toEqual(native("tiny3-f32", 12));
    const { bound, made } = await seen(page);
    expect(bound).toBeLessThanOrEqual(256 * KIB);
    // 56 rows of 5.6 KiB.
    expect(made["region_encoder.roi_align.flatten_linear.weight"]).toBe(2);
  });
});
