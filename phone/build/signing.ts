// The key that a build's manifest is signed by (Ed25519): that of ENGRAM_RELEASE_KEY, a file with its 32 secret bytes in
// hex, else the development key, which everybody can compute and nobody should believe.

import { createHash, createPrivateKey, createPublicKey, sign, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";

const DEVELOPMENT = createHash("sha256").update("engram development build").digest("hex");
const PKCS8 = "302e020100300506032b657004220420";
const SIGNED_AS = "engram-build-1:";

function secret(): string {
  const file = process.env.ENGRAM_RELEASE_KEY;
  if (!file) return DEVELOPMENT;
  const given = readFileSync(file, "utf8").trim();
  if (!/^[0-9a-f]{64}$/.test(given)) throw new Error("ENGRAM_RELEASE_KEY names a file with other content than 64 hex digits");
  return given;
}

function keyOf(seed: string): KeyObject {
  return createPrivateKey({ key: Buffer.from(PKCS8 + seed, "hex"), format: "der", type: "pkcs8" });
}

function publicHex(seed: string): string {
  return createPublicKey(keyOf(seed)).export({ format: "der", type: "spki" }).subarray(-32).toString("hex");
}

/** The public key (hex) of this build, and whether it is a release's. */
export function buildKey(): { key: string; release: boolean } {
  return { key: publicHex(secret()), release: secret() !== DEVELOPMENT };
}

/** The signature (hex) of a manifest's bytes. */
export function signManifest(manifest: string): string {
  return sign(null, Buffer.from(SIGNED_AS + manifest), keyOf(secret())).toString("hex");
}
