// An identity on its way to another device: encrypted here under a key that follows from a one-time code (80 bits,
// stretched by scrypt), left with the gateway for a while, taken once. What it is kept under follows from the code too.

import { scryptAsync } from "@noble/hashes/scrypt.js";

import { base64, concat, hex, random, text, unbase64, utf8, type Bytes } from "./bytes";
import type { Secret } from "./vault";

/** Crockford's base32: no letter that a digit could be taken for. */
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH = 16;
const COST = 2 ** 15;
const SALT = "engram transfer 1";
const IV = 12;

/** What is carried. */
export interface Carried {
  secret: Secret;
  name: string;
  checked: boolean;
}

/** The code is of another form, or what it opens was changed. */
export class BadCode extends Error {}

/** Make a code, as it is shown: ABCD-EFGH-JKMN-PQRS. */
export function makeCode(): string {
  const each = Array.from(random(LENGTH), (byte) => ALPHABET[byte & 31]);
  return [0, 4, 8, 12].map((at) => each.slice(at, at + 4).join("")).join("-");
}

/** A typed code in the one spelling; null for what is none. */
export function readCode(typed: string): string | null {
  const plain = typed.toUpperCase().replace(/[\s–—-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  return plain.length === LENGTH && [...plain].every((each) => ALPHABET.includes(each)) ? plain : null;
}

/** What a code leads to: the id that it is kept under, and how it is opened. Throws BadCode. */
export class Passage {
  private constructor(
    readonly id: string,
    private readonly key: CryptoKey,
  ) {}

  static async of(code: string): Promise<Passage> {
    const plain = readCode(code);
    if (plain === null) throw new BadCode("a code has 16 letters and digits");
    const bytes = new Uint8Array(await scryptAsync(utf8(plain), utf8(SALT), { N: COST, r: 8, p: 1, dkLen: 48 }));
    const key = await crypto.subtle.importKey("raw", bytes.slice(16), "AES-GCM", false, ["encrypt", "decrypt"]);
    return new Passage(hex(bytes.slice(0, 16)), key);
  }

  async seal(carried: Carried): Promise<string> {
    const iv = random(IV);
    const sealed = await crypto.subtle.encrypt(this.how(iv), this.key, utf8(JSON.stringify(carried)));
    return base64(concat(iv, new Uint8Array(sealed)));
  }

  /** Throws BadCode. */
  async open(sealed: string): Promise<Carried> {
    try {
      const bytes = unbase64(sealed);
      const plain = await crypto.subtle.decrypt(this.how(bytes.slice(0, IV)), this.key, bytes.slice(IV));
      return JSON.parse(text(new Uint8Array(plain))) as Carried;
    } catch {
      throw new BadCode("it does not open");
    }
  }

  private how(iv: Bytes): AesGcmParams {
    return { name: "AES-GCM", iv, additionalData: utf8(SALT) };
  }
}
