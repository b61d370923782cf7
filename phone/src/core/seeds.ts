// The two secrets that come of BIP39 words: the one that Substrate derives, and the one that EVM wallets do.

import { utf8, type Bytes } from "./bytes";

const ROUNDS = 2048;

/** Bring typed words into the one spelling: lower case, single spaces. */
export function tidy(typed: string): string {
  return typed.normalize("NFKD").toLowerCase().trim().split(/\s+/).join(" ");
}

/** The mini secret (32 bytes) that Substrate makes of the words' entropy, which is not BIP39's seed. */
export async function miniSecret(entropy: Bytes, password = ""): Promise<Bytes> {
  return (await pbkdf2(entropy, password)).slice(0, 32);
}

/** BIP39's seed (64 bytes), which EVM wallets derive their keys from. */
export async function seed(words: string, password = ""): Promise<Bytes> {
  return pbkdf2(utf8(tidy(words)), password);
}

async function pbkdf2(secret: Bytes, password: string): Promise<Bytes> {
  const key = await crypto.subtle.importKey("raw", secret, "PBKDF2", false, ["deriveBits"]);
  const salt = utf8("mnemonic" + password.normalize("NFKD"));
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-512", salt, iterations: ROUNDS }, key, 512));
}
