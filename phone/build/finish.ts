// Finishes a build: the worker that knows its files, and each file compressed once, so that serving it costs nothing.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

import { build as bundle, type Plugin } from "vite";

import { FILE as LICENSES } from "./licenses.ts";
import { buildKey, signManifest } from "./signing.ts";

const COMPRESSED = /\.(?:html|js|css|svg|webmanifest|json|txt)$/;
const KEPT_OUT = new Set(["sw.js", "files.json", "files.sig"]);

export function finish(folder: string): Plugin {
  return {
    name: "engram-finish",
    apply: "build",
    async closeBundle() {
      const files = readdirSync(folder).filter((name) => !/\.(?:br|gz)$/.test(name) && !KEPT_OUT.has(name));
      const digests = Object.fromEntries(files.sort().map((name) => [name, sha256(readFileSync(join(folder, name)))]));
      const name = "engram-" + sha256(Buffer.from(JSON.stringify(digests))).slice(0, 16);
      await worker(folder, name, digests);
      digests["sw.js"] = sha256(readFileSync(join(folder, "sw.js")));
      const manifest = JSON.stringify({ build: name, key: buildKey().key, files: digests }, null, 1) + "\n";
      writeFileSync(join(folder, "files.json"), manifest);
      writeFileSync(join(folder, "files.sig"), signManifest(manifest) + "\n");
      for (const each of [...files, "sw.js"].filter((file) => COMPRESSED.test(file))) {
        const content = readFileSync(join(folder, each));
        const quality = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
        writeFileSync(join(folder, each + ".br"), brotliCompressSync(content, { params: quality }));
        writeFileSync(join(folder, each + ".gz"), gzipSync(content, { level: 9 }));
      }
    },
  };
}

async function worker(folder: string, name: string, digests: Record<string, string>): Promise<void> {
  const kept = Object.entries(digests).filter(([file]) => !file.startsWith("ops") && file !== LICENSES);
  const shell = Object.fromEntries(kept.map(([file, digest]) => [file === "index.html" ? "/app/" : `/app/${file}`, digest]));
  await bundle({
    configFile: false,
    logLevel: "warn",
    define: { __FILES__: JSON.stringify(shell), __NAME__: JSON.stringify(name) },
    build: {
      outDir: folder,
      emptyOutDir: false,
      copyPublicDir: false,
      modulePreload: false,
      rollupOptions: { input: "src/worker.ts", output: { format: "iife", entryFileNames: "sw.js" } },
    },
  });
}

function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
