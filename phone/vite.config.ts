import { svelte } from "@sveltejs/vite-plugin-svelte";
import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

import { finish } from "./build/finish.ts";
import { licenses } from "./build/licenses.ts";
import { buildKey } from "./build/signing.ts";
import manifest from "./package.json" with { type: "json" };

// The gateway serves this folder; it becomes part of the Python package.
const BUILT = resolve(import.meta.dirname, "../engram/gateway/phone_built");
const GATEWAY = process.env.ENGRAM_GATEWAY ?? "http://127.0.0.1:9000";

export default defineConfig({
  base: "/app/",
  plugins: [svelte(), licenses(), finish(BUILT)],
  define: { __BUILD__: JSON.stringify(manifest.version), __BUILD_KEY__: JSON.stringify(buildKey()) },
  build: {
    outDir: BUILT,
    emptyOutDir: true,
    target: ["chrome111", "safari16.4", "firefox114"],
    assetsDir: "",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    rollupOptions: { input: { index: resolve(import.meta.dirname, "index.html"), ops: resolve(import.meta.dirname, "ops.html") } },
  },
  server: {
    proxy: Object.fromEntries(
      ["/sessions", "/payments", "/identity", "/tiers", "/nodes", "/terms", "/bittensor", "/balances", "/app/config.json", "/orders", "/transfers"].map((path) => [
        path,
        { target: GATEWAY, changeOrigin: true },
      ]),
    ),
  },
  test: { environment: "node", include: ["tests/**/*.test.ts"], testTimeout: 60_000 },
});
