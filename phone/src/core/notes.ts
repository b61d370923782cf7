// Notes that only this identity reads: encrypted here, in the form of the SDK's NamespaceCipher, and found by their words
// through vectors that are made here too. engram/sdk/phone_notes.py is the same in Python.
//
// The node sees how long a note is, when it comes, and which notes share words (their vectors are near each other); not
// which words.

import { blake2b } from "@noble/hashes/blake2.js";

import { base64, concat, hex, random, text, unbase64, utf8, type Bytes } from "./bytes";
import type { Signer } from "./keys";

export const PRIVATE_NAMESPACE = "phone_private";
/** The metadata key that holds a ciphertext. */
export const FIELD = "_enc";
const ROUNDS = 100_000;
const IV = 12;
const WORD_WEIGHT = 4;

export interface Opened {
  text: string;
  metadata: Record<string, unknown>;
}

/** The key by which others of the same identity's programs read the notes: the SDK's `namespace_key`. */
export function notesKey(signer: Signer): string {
  return hex(signer.derived("engram notes 1"));
}

export class NotesCipher {
  private constructor(private readonly key: CryptoKey) {}

  /** Derive the key (some tens of milliseconds). */
  static async of(key: string, namespace = PRIVATE_NAMESPACE): Promise<NotesCipher> {
    const secret = await crypto.subtle.importKey("raw", utf8(key), "PBKDF2", false, ["deriveKey"]);
    const how = { name: "PBKDF2", hash: "SHA-256", salt: utf8(namespace), iterations: ROUNDS };
    return new NotesCipher(await crypto.subtle.deriveKey(how, secret, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]));
  }

  async seal(note: Opened): Promise<string> {
    const iv = random(IV);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, this.key, utf8(JSON.stringify(note)));
    return base64(concat(iv, new Uint8Array(sealed))).replace(/\+/g, "-").replace(/\//g, "_");
  }

  /** Open what was sealed; null for what another key sealed, or what was changed. */
  async open(sealed: string): Promise<Opened | null> {
    try {
      const bytes = unbase64(sealed.replace(/-/g, "+").replace(/_/g, "/"));
      const plain = await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes.subarray(0, IV) }, this.key, bytes.subarray(IV));
      const found = JSON.parse(text(new Uint8Array(plain))) as Partial<Opened>;
      return typeof found.text === "string" ? { text: found.text, metadata: found.metadata ?? {} } : null;
    } catch {
      return null;
    }
  }
}

/** Words as they are compared: letters, marks and digits, in lower case. */
export function wordsIn(given: string): string[] {
  return [...new Set(given.normalize("NFKC").toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [])];
}

export class NotesVectors {
  readonly #key: Bytes;

  constructor(signer: Signer) {
    this.#key = signer.derived("engram notes vectors 1");
  }

  /** A text's vector of length 1: its words and their trigrams, hashed under the identity's key. */
  of(given: string, dimension: number): Float32Array<ArrayBuffer> {
    const sums = new Float64Array(dimension);
    const features = new Map<string, number>();
    for (const word of wordsIn(given)) {
      features.set("w:" + word, WORD_WEIGHT);
      const letters = [..."^" + word + "$"];
      for (let at = 0; at + 3 <= letters.length; at += 1) features.set("g:" + letters.slice(at, at + 3).join(""), 1);
    }
    for (const [feature, weight] of features) {
      const hashed = new DataView(blake2b(utf8(feature), { key: this.#key, dkLen: 16 }).buffer);
      for (let at = 0; at < 16; at += 4) {
        const index = hashed.getUint16(at, true) % dimension;
        sums[index] = (sums[index] as number) + (hashed.getUint16(at + 2, true) & 1 ? weight : -weight);
      }
    }
    const length = Math.hypot(...sums);
    if (length === 0) sums[0] = 1;
    return Float32Array.from(sums, (each) => each / (length || 1));
  }
}

/** A vector as a node takes it: base64 of 32-bit floats, little endian. */
export function packed(vector: Float32Array): string {
  const view = new DataView(new ArrayBuffer(4 * vector.length));
  vector.forEach((each, at) => view.setFloat32(4 * at, each, true));
  return base64(new Uint8Array(view.buffer));
}

/** Whether a note that was found by its vector is one that a person would call found. */
export function fits(note: string, question: string, score: number): boolean {
  const content = wordsIn(note).join(" ");
  return score > 0.35 || wordsIn(question).some((word) => word.length > 2 && content.includes(word));
}
