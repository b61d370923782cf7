// What is served here against what was built: a list of all files with their digests, signed by the key of the build.
//
// It finds a mirror that changed a file, a half-copied update, and a build that somebody else signed. Whoever serves the
// page could serve another check as well: no page can rule that out (docs/phone.md).

import { ed25519 } from "@noble/curves/ed25519.js";

import { bounded } from "./gateway";
import { hex, sha256, text, unhex, utf8, type Bytes } from "./bytes";

export interface Manifest {
  build: string;
  files: Record<string, string>;
}

export type Read = (path: string) => Promise<Bytes | null>;

const MOST_FILES = 500;
/** The largest file of a build is the font. */
const MOST_FILE_BYTES = 4_000_000;

/** The list of files that `key` (hex) signed; null where it did not. */
export async function signedManifest(key: string, read: Read): Promise<Manifest | null> {
  const [content, signature] = await Promise.all([read("files.json"), read("files.sig")]);
  if (!content || !signature) return null;
  try {
    const signed = utf8("engram-build-1:" + text(content));
    if (!ed25519.verify(unhex(text(signature).trim()), signed, unhex(key), { zip215: false })) return null;
    return JSON.parse(text(content)) as Manifest;
  } catch {
    return null;
  }
}

/** Whether what is served is what was signed: "altered" where a file differs, null where that cannot be read now. */
export async function check(key: string, read: Read = served): Promise<"verified" | "altered" | null> {
  if ((await read("files.json")) === null) return null;
  const manifest = await signedManifest(key, read);
  const files = Object.entries(manifest?.files ?? {}).filter(([name]) => !name.startsWith("ops"));
  if (files.length === 0 || files.length > MOST_FILES) return "altered";
  for (const [name, digest] of files) {
    const content = await read(name === "index.html" ? "" : name);
    if (content === null) return null;
    if (hex(await sha256(content)) !== digest) return "altered";
  }
  return "verified";
}

/** Whether the worker that is served now is one that `key` signed. */
export async function isOffered(key: string, read: Read = served): Promise<boolean> {
  const [manifest, worker] = await Promise.all([signedManifest(key, read), read("sw.js")]);
  return manifest !== null && worker !== null && hex(await sha256(worker)) === manifest.files["sw.js"];
}

export async function served(path: string): Promise<Bytes | null> {
  try {
    const response = await fetch("/app/" + path, { cache: "no-store", credentials: "omit", redirect: "error" });
    return response.ok ? await bounded(response, MOST_FILE_BYTES) : null;
  } catch {
    return null;
  }
}
