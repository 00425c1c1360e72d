import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses, so that the built page runs under any path.
  base: "./",
  build: { target: "es2022" },
  // Only for `vite dev`: the package finds its worker and its wasm by its own address, which pre-bundling would change.
  optimizeDeps: { exclude: ["groma-web"] },
});
