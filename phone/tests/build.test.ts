import { ed25519 } from "@noble/curves/ed25519.js";
import { describe, expect, test } from "vitest";

import { buildKey, signManifest } from "../build/signing";
import { check, isOffered, signedManifest, type Read } from "../src/core/build";
import { hex, sha256, utf8, type Bytes } from "../src/core/bytes";

const SEED = new Uint8Array(32).fill(7);
const KEY = hex(ed25519.getPublicKey(SEED));

/** What a server serves: a build that `seed` signed, with files changed afterwards. */
async function served(seed = SEED, changes: Record<string, string | null> = {}): Promise<Read> {
  const files: Record<string, string> = { "index.html": "<!doctype html>", "sw.js": "//", "a.js": "let a;", "ops.html": "" };
  const digests: Record<string, string> = {};
  for (const [name, content] of Object.entries(files)) digests[name] = hex(await sha256(utf8(content)));
  const manifest = JSON.stringify({ build: "engram-1", files: digests });
  files["files.json"] = manifest;
  files["files.sig"] = hex(ed25519.sign(utf8("engram-build-1:" + manifest), seed)) + "\n";
  return async (path): Promise<Bytes | null> => {
    const name = path === "" ? "index.html" : path;
    const content = name in changes ? changes[name] : files[name];
    return content === null || content === undefined ? null : utf8(content);
  };
}

describe("the build", () => {
  test("that its key signed is verified, and its update offered", async () => {
    const read = await served();
    expect(await check(KEY, read)).toBe("verified");
    expect(await isOffered(KEY, read)).toBe(true);
  });

  test.each([
    ["a changed file", { "a.js": "let b;" }, "altered"],
    ["a changed page", { "index.html": "<script>" }, "altered"],
    ["a changed list", { "files.json": "{}" }, "altered"],
    ["no signature", { "files.sig": null }, "altered"],
    ["no hex", { "files.sig": "zz" }, "altered"],
    ["a file that cannot be read now", { "a.js": null }, null],
    ["nothing that can be read now", { "files.json": null }, null],
  ] as const)("with %s is not", async (_, changes, found) => {
    expect(await check(KEY, await served(SEED, changes))).toBe(found);
  });

  test("that another key signed is no update", async () => {
    const read = await served(new Uint8Array(32).fill(8));
    expect(await signedManifest(KEY, read)).toBeNull();
    expect(await isOffered(KEY, read)).toBe(false);
  });

  test("whose worker is another than the signed one is no update", async () => {
    expect(await isOffered(KEY, await served(SEED, { "sw.js": "//other" }))).toBe(false);
    expect(await isOffered(KEY, await served(SEED, { "sw.js": null }))).toBe(false);
  });

  test("is signed by the development key where no release key is set, and the app's check takes it", () => {
    const { key, release } = buildKey();
    expect(release).toBe(false);
    const signature = signManifest("{}");
    const bytes = Uint8Array.from(Buffer.from(signature, "hex"));
    expect(ed25519.verify(bytes, utf8("engram-build-1:{}"), Uint8Array.from(Buffer.from(key, "hex")))).toBe(true);
    expect(signManifest("{}")).toBe(signature);
  });
});
