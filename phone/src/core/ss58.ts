// SS58 addresses of sr25519 public keys: prefix 42, canonical text only, as the gateway reads them.

import { blake2b } from "@noble/hashes/blake2.js";
import { base58 } from "@scure/base";

import { concat, equal, utf8, type Bytes } from "./bytes";

const PREFIX = 42;

function checksum(payload: Uint8Array): Uint8Array {
  return blake2b(concat(utf8("SS58PRE"), payload), { dkLen: 64 }).subarray(0, 2);
}

export function encode(publicKey: Uint8Array): string {
  if (publicKey.length !== 32) throw new RangeError(`a public key has 32 bytes, not ${publicKey.length}`);
  const payload = concat(Uint8Array.of(PREFIX), publicKey);
  return base58.encode(concat(payload, checksum(payload)));
}

/** Return the public key of an address. Throws RangeError for any other text. */
export function decode(address: string): Bytes {
  let binary: Uint8Array;
  try {
    binary = base58.decode(address);
  } catch {
    throw new RangeError("not an SS58 address");
  }
  if (binary.length !== 35 || binary[0] !== PREFIX || !equal(checksum(binary.subarray(0, 33)), binary.subarray(33))) {
    throw new RangeError("not an SS58 address of prefix 42");
  }
  return new Uint8Array(binary.subarray(1, 33));
}
