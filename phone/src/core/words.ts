// BIP39 words: making, reading and correcting them. Loaded when words are shown or typed; seeds.ts needs no list.

import { entropyToMnemonic, mnemonicToEntropy, validateMnemonic } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";

import { random, type Bytes } from "./bytes";
import { tidy } from "./seeds";

export type Count = 12 | 24;

/** Make new words: 12 carry 128 bits, 24 carry 256. */
export function make(count: Count = 12): string {
  return entropyToMnemonic(random(count === 12 ? 16 : 32), wordlist);
}

/** Say what is wrong with typed words, `null` for nothing. */
export function fault(words: string): { code: "count"; found: number } | { code: "unknown"; word: string } | { code: "checksum" } | null {
  const each = tidy(words).split(" ").filter(Boolean);
  const unknown = each.find((word) => !wordlist.includes(word));
  if (unknown !== undefined) return { code: "unknown", word: unknown };
  if (each.length !== 12 && each.length !== 24) return { code: "count", found: each.length };
  return validateMnemonic(each.join(" "), wordlist) ? null : { code: "checksum" };
}

/** The words that begin like this, at most four. */
export function suggestions(beginning: string): string[] {
  return beginning.length < 2 ? [] : wordlist.filter((word) => word.startsWith(beginning.toLowerCase())).slice(0, 4);
}

export function entropyOf(words: string): Bytes {
  return new Uint8Array(mnemonicToEntropy(tidy(words), wordlist));
}

export function wordsOf(entropy: Uint8Array): string {
  return entropyToMnemonic(entropy, wordlist);
}
