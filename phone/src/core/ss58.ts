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
  const { prefix, key } = parts(address);
  if (prefix.length !== 1 || prefix[0] !== PREFIX) throw new RangeError("not an SS58 address of prefix 42");
  return key;
}

/** The same for an address of any network's, as keystore files have them. Throws RangeError. */
export function keyOfAnyPrefix(address: string): Bytes {
  return parts(address).key;
}

function parts(address: string): { prefix: Bytes; key: Bytes } {
  let binary: Uint8Array;
  try {
    binary = base58.decode(address);
  } catch {
    throw new RangeError("not an SS58 address");
  }
  const payload = binary.subarray(0, -2);
  // One byte of a prefix below 64, two of others.
  const size = (payload[0] ?? 0) < 64 ? 1 : 2;
  if (payload.length !== size + 32 || !equal(checksum(payload), binary.subarray(-2))) throw new RangeError("not an SS58 address");
  return { prefix: new Uint8Array(payload.subarray(0, size)), key: new Uint8Array(payload.subarray(size)) };
}
