// The sr25519 identity: derivation as substrate-interface does it, signing, verifying.

import { blake2b } from "@noble/hashes/blake2.js";
import { HDKD, getPublicKey, secretFromSeed, sign, verify } from "@scure/sr25519";

import { concat, utf8, wipe, type Bytes } from "./bytes";
import { encode } from "./ss58";
import { miniSecret } from "./seeds";

/** A key that signs for one identity. Its secret never leaves the object. */
export class Signer {
  readonly publicKey: Uint8Array;
  readonly address: string;
  readonly #secret: Uint8Array;

  /** Take the expanded secret (64 bytes). */
  constructor(secret: Uint8Array) {
    this.#secret = secret;
    this.publicKey = getPublicKey(secret);
    this.address = encode(this.publicKey);
  }

  sign(message: Uint8Array): Uint8Array {
    return sign(this.#secret, message);
  }

  /** Forget the secret; the signer is of no use afterwards. */
  wipe(): void {
    wipe(this.#secret);
  }

  /** A key of 32 bytes for another use, which tells nothing of the secret. */
  derived(use: string): Bytes {
    return new Uint8Array(blake2b(this.#secret, { key: utf8(use), dkLen: 32 }));
  }

  /** A copy of the secret, for an export that the person has asked for. */
  exported(): Bytes {
    return new Uint8Array(this.#secret);
  }
}

/** The signer of words' entropy, with a derivation path such as `//phone/0` where there is one. Throws RangeError. */
export async function signerOf(entropy: Bytes, path = "", password = ""): Promise<Signer> {
  const mini = await miniSecret(entropy, password);
  const secret = derived(secretFromSeed(mini), path);
  wipe(mini);
  return new Signer(secret);
}

/** Whether `publicKey` signed this message; false for what is no signature too. */
export function signed(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  try {
    return verify(message, signature, publicKey);
  } catch {
    return false;
  }
}

/** Whether this is a path that can be derived: `/soft`, `//hard`, any number of them. */
export function isPath(path: string): boolean {
  return /^(\/{1,2}[^/]+)*$/.test(path);
}

function derived(secret: Uint8Array, path: string): Uint8Array {
  if (!isPath(path)) throw new RangeError(`${path} is no derivation path: write //hard or /soft`);
  let current = secret;
  for (const [, slashes, name] of path.matchAll(/(\/{1,2})([^/]+)/g)) {
    const code = chainCode(name as string);
    const next = slashes === "//" ? HDKD.secretHard(current, code) : HDKD.secretSoft(current, code);
    wipe(current);
    current = next;
  }
  return current;
}

/** 32 bytes that stand for a junction: a number in little endian, or a text with its SCALE length; longer ones hashed. */
function chainCode(name: string): Uint8Array {
  if (/^[0-9]+$/.test(name)) return littleEndian(BigInt(name), 32);
  const content = utf8(name);
  const encoded = concat(compact(content.length), content);
  if (encoded.length > 32) return blake2b(encoded, { dkLen: 32 });
  return concat(encoded, new Uint8Array(32 - encoded.length));
}

function compact(size: number): Uint8Array {
  if (size < 64) return Uint8Array.of(size << 2);
  if (size < 16384) return littleEndian(BigInt((size << 2) | 1), 2);
  throw new RangeError("a junction of a path may have 16383 bytes");
}

function littleEndian(value: bigint, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 1, value >>= 8n) bytes[at] = Number(value & 0xffn);
  if (value !== 0n) throw new RangeError("a junction's number is too large");
  return bytes;
}
