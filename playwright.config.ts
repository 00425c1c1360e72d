import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

// Debian's chromium brings a software adapter for WebGPU. Elsewhere Playwright's own browser is used.
const system = process.env.CHROMIUM ?? "/usr/bin/chromium";

// Another port lets two checkouts be tested side by side.
const port = process.env.GROMA_TEST_PORT ?? "5198";

export default defineConfig({
  testDir: "tests/web",
  outputDir: "test-results",
  // One engine computes at a time: two would only share the cores.
  workers: 1,
  timeout: 120_000,
  expect: { timeout: 20_000 },
  forbidOnly: !!process.env.CI,
  // What depends on a busy machine's timing is tried once more, and then listed as flaky.
  retries: 1,
  reporter: [["list"]],

  use: {
    browserName: "chromium",
    baseURL: `http://localhost:${port}`,
    viewport: { width: 1280, height: 800 },
    launchOptions: {
      ...(existsSync(system) ? { executablePath: system } : {}),
      args: [
        "--no-sandbox",
        "--enable-unsafe-webgpu",
        "--use-webgpu-adapter=swiftshader",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
      ],
    },
  },
  projects: [
    { name: "element", testMatch: /[\\/]element[^\\/]*\.spec\.ts$/ },
    { name: "page", testMatch: /[\\/]page[^\\/]*\.spec\.ts$/ },
    { name: "gpu", testMatch: "gpu.spec.ts", timeout: 300_000 },
    { name: "memory", testMatch: "memory.spec.ts", timeout: 300_000 },
    { name: "model", testMatch: "model.spec.ts", timeout: 600_000 },
    { name: "asleep", testMatch: "asleep.spec.ts" },
    { name: "client", testMatch: /[\\/]client[^\\/]*\.spec\.ts$/ },
    { name: "offline", testMatch: "offline.spec.ts" },
    { name: "package", testMatch: "package.spec.ts" },
    { name: "docs", testMatch: "docs.spec.ts" },
  ],
  webServer: {
    command: `node node_modules/vite/bin/vite.js --port ${port} --strictPort --host localhost --logLevel warn`,
    url: `http://localhost:${port}/tests/web/fixture/index.html`,
    reuseExistingServer: !process.env.CI,
  },
});
