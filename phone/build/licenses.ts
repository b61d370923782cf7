// Writes licenses.txt: of every package that the app is made of, its name, version and licence, as its authors ask for.
// The bill of materials of a release reads the same names (shipping/phone_app.py).

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import type { Plugin } from "vite";

export const FILE = "licenses.txt";
const PACKAGE = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//;
const TEXT = /^licen[cs]e/i;

export function licenses(): Plugin {
  return {
    name: "engram-licenses",
    apply: "build",
    generateBundle(_, bundle) {
      const parts = Object.values(bundle).flatMap((part) => (part.type === "chunk" ? part.moduleIds : part.originalFileNames));
      const folders = new Set(parts.map((part) => PACKAGE.exec(part.replace(/^\0/, "").replace(/^(?!\/)/, process.cwd() + "/"))?.[1]));
      const texts = [...folders].filter((folder) => folder !== undefined).map(section);
      this.emitFile({ type: "asset", fileName: FILE, source: texts.sort().join("\n") });
    },
  };
}

function section(folder: string): string {
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name: string; version: string; license: string };
  const file = readdirSync(folder).find((name) => TEXT.test(name));
  if (file === undefined) throw new Error(`${folder} has no licence text`);
  return `== ${about.name} ${about.version} (${about.license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}
