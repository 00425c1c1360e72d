import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses: the built site runs under any path of any static host.
  base: "./",
  // The web app manifest and its icons, which keep their names.
  publicDir: "www/public",
  worker: { format: "es" },
  // The examples of the documentation are projects of their own.
  optimizeDeps: { entries: ["index.html", "tests/web/fixture/*.html"] },
  build: {
    target: "es2022",
    outDir: "dist",
    // Models and samples lie in the same folder and are not Vite's.
    emptyOutDir: false,
    // Nothing becomes a data: address, so that a strict content security policy holds.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  test: { include: ["tests/unit/**/*.test.ts"] },
});
