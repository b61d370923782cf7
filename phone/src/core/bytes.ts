// Bytes and their texts.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export type Bytes = Uint8Array<ArrayBuffer>;

export function utf8(text: string): Bytes {
  return new Uint8Array(encoder.encode(text));
}

/** Decode UTF-8. Throws TypeError for bytes that are none. */
export function text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Read hex digits, with or without 0x. Throws RangeError. */
export function unhex(digits: string): Bytes {
  const plain = digits.startsWith("0x") ? digits.slice(2) : digits;
  if (plain.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(plain)) throw new RangeError("not hex digits");
  return Uint8Array.from({ length: plain.length / 2 }, (_, at) => parseInt(plain.slice(2 * at, 2 * at + 2), 16));
}

export function concat(...parts: Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

export function base64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** Read standard base64. Throws DOMException. */
export function unbase64(given: string): Bytes {
  return Uint8Array.from(atob(given), (character) => character.charCodeAt(0));
}

export function random(size: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(size));
}

/** Overwrite a secret that is needed no more. */
export function wipe(...secrets: Uint8Array[]): void {
  for (const secret of secrets) secret.fill(0);
}

export async function sha256(bytes: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
