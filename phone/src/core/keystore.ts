// Keystores of polkadot-js (version 3, sr25519). Written with scrypt's N = 2^15, since substrate-interface reads no
// dearer ones; read up to 2^17, which polkadot-js writes. Header and divider are checked: a file that only this app
// could read would be no backup.

import { xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { scryptAsync } from "@noble/hashes/scrypt.js";
import { fromKeypair } from "@scure/sr25519";

import { base64, concat, equal, random, unbase64, unhex, utf8, wipe } from "./bytes";
import { Signer } from "./keys";
import { keyOfAnyPrefix } from "./ss58";

const HEADER = Uint8Array.of(48, 83, 2, 1, 1, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32);
const DIVIDER = Uint8Array.of(161, 35, 3, 33, 0);
const SIZE = HEADER.length + 64 + DIVIDER.length + 32;
const MOST_N = 2 ** 17;
const MOST_COST = 2 ** 20;
const WRITTEN = { N: 2 ** 15, p: 1, r: 8 };

export type KeystoreFault = "no_keystore" | "not_sr25519" | "parameters" | "damaged" | "wrong_passphrase" | "other_key";

export class KeystoreError extends Error {
  constructor(readonly code: KeystoreFault) {
    super(code);
  }
}

/** Open a keystore. Throws KeystoreError. */
export async function read(json: string, passphrase: string): Promise<Signer> {
  const { encoded, type, address } = layout(json);
  let content = encoded;
  if (type.includes("scrypt")) content = await deciphered(encoded, passphrase);
  else if (!(type.length === 1 && type[0] === "none")) throw new KeystoreError("no_keystore");
  if (content.length !== SIZE || !equal(content.subarray(0, HEADER.length), HEADER)) throw new KeystoreError("damaged");
  const secret = content.subarray(HEADER.length, HEADER.length + 64);
  const after = HEADER.length + 64;
  if (!equal(content.subarray(after, after + DIVIDER.length), DIVIDER)) throw new KeystoreError("damaged");
  const publicKey = content.subarray(after + DIVIDER.length);
  let signer: Signer;
  try {
    signer = new Signer(fromKeypair(concat(secret, publicKey)).slice(0, 64));
  } catch {
    throw new KeystoreError("other_key");
  }
  if (!equal(signer.publicKey, publicKey) || !isAddressOf(address, publicKey)) throw new KeystoreError("other_key");
  wipe(content);
  return signer;
}

/** Write a keystore of the signer's key. */
export async function write(signer: Signer, passphrase: string, name: string): Promise<string> {
  // The library keeps a secret in the form that is written here too: its scalar multiplied by the cofactor 8.
  const content = concat(HEADER, signer.exported(), DIVIDER, signer.publicKey);
  const salt = random(32);
  const key = await scryptAsync(utf8(passphrase), salt, { ...WRITTEN, dkLen: 64 });
  const nonce = random(24);
  const sealed = xsalsa20poly1305(key.subarray(0, 32), nonce).encrypt(content);
  wipe(content, key);
  const parameters = new DataView(new ArrayBuffer(12));
  [WRITTEN.N, WRITTEN.p, WRITTEN.r].forEach((value, at) => parameters.setUint32(4 * at, value, true));
  return JSON.stringify({
    encoded: base64(concat(salt, new Uint8Array(parameters.buffer), nonce, sealed)),
    encoding: { content: ["pkcs8", "sr25519"], type: ["scrypt", "xsalsa20-poly1305"], version: "3" },
    address: signer.address,
    meta: { name, whenCreated: 0 },
  });
}

/** Whether the address, of any network, is that of a key. */
function isAddressOf(address: string, publicKey: Uint8Array): boolean {
  try {
    return equal(address.startsWith("0x") ? unhex(address) : keyOfAnyPrefix(address), publicKey);
  } catch {
    return false;
  }
}

function layout(json: string): { encoded: Uint8Array; type: string[]; address: string } {
  try {
    const { encoded, encoding, address } = JSON.parse(json);
    if (json.length > 65_536 || encoding.version !== "3" || typeof address !== "string") throw new Error("layout");
    if (!encoding.content.includes("sr25519")) throw new KeystoreError("not_sr25519");
    return { encoded: unbase64(encoded), type: encoding.type, address };
  } catch (error) {
    throw error instanceof KeystoreError ? error : new KeystoreError("no_keystore");
  }
}

async function deciphered(encoded: Uint8Array, passphrase: string): Promise<Uint8Array> {
  if (encoded.length < 32 + 12 + 24 + 16) throw new KeystoreError("damaged");
  const view = new DataView(encoded.buffer, encoded.byteOffset + 32, 12);
  const [N, p, r] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
  if (N > MOST_N || N < 2 || (N & (N - 1)) !== 0 || p < 1 || r < 1 || N * p * r > MOST_COST) throw new KeystoreError("parameters");
  const key = await scryptAsync(utf8(passphrase), encoded.subarray(0, 32), { N, p, r, dkLen: 64 });
  try {
    return xsalsa20poly1305(key.subarray(0, 32), encoded.subarray(44, 68)).decrypt(encoded.subarray(68));
  } catch {
    throw new KeystoreError("wrong_passphrase");
  }
}
