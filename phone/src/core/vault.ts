// Secrets at rest: AES-GCM under a key that the device holds (it cannot be exported), that comes from a passphrase
// (scrypt), or that a passkey gives (WebAuthn PRF). What is sealed is bound to the identity's address.

import { concat, random, text, utf8, wipe, type Bytes } from "./bytes";

/** What is sealed of an identity: its words, or the key of a keystore with words of its own for the spending key. */
export type Secret =
  | { kind: "words"; words: string; entropyHex: string; path: string }
  | { kind: "pair"; secretHex: string; spendingWords: string };

export interface Sealed {
  by: "device" | "passphrase" | "passkey";
  iv: Bytes;
  ciphertext: Bytes;
  /** By the device: its key, which no script can read. */
  key?: CryptoKey;
  /** By a passphrase: scrypt's salt and cost. By a passkey: the PRF's salt. */
  salt?: Bytes;
  cost?: number;
  credential?: Bytes;
}

/** The passphrase is not this one, or what is sealed was changed. */
export class WrongKey extends Error {}

const COST = 2 ** 15;
/** Shorter passphrases are refused. */
export const LEAST_CHARACTERS = 8;

export async function sealByDevice(secret: Secret, address: string): Promise<Sealed> {
  const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  return { by: "device", key, ...(await seal(key, secret, address)) };
}

export async function sealByPassphrase(secret: Secret, address: string, passphrase: string): Promise<Sealed> {
  if (passphrase.length < LEAST_CHARACTERS) throw new RangeError(`a passphrase has at least ${LEAST_CHARACTERS} characters`);
  const salt = random(32);
  return { by: "passphrase", salt, cost: COST, ...(await seal(await stretched(passphrase, salt, COST), secret, address)) };
}

/** Make a passkey and seal by it. Call it in the task of the tap: iPhones give no passkey to a later one. */
export async function sealByPasskey(secret: Secret, address: string, name: string): Promise<Sealed> {
  const salt = random(32);
  const made = (await navigator.credentials.create({
    publicKey: {
      challenge: random(32),
      rp: { name: "Engram" },
      user: { id: random(16), name, displayName: name },
      pubKeyCredParams: [
        { type: "public-key", alg: -7 },
        { type: "public-key", alg: -257 },
      ],
      authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
      extensions: { prf: { eval: { first: salt } } },
    },
  })) as PublicKeyCredential | null;
  if (made === null) throw new WrongKey("no passkey was made");
  const credential = new Uint8Array(made.rawId);
  const first = made.getClientExtensionResults().prf?.results?.first as ArrayBuffer | undefined;
  const output = first ? new Uint8Array(first) : await prf(credential, salt);
  return { by: "passkey", credential, salt, ...(await seal(await ofPrf(output), secret, address)) };
}

/** Open what is sealed. Throws WrongKey. */
export async function unseal(sealed: Sealed, address: string, passphrase = ""): Promise<Secret> {
  let key: CryptoKey;
  if (sealed.by === "device") key = sealed.key as CryptoKey;
  else if (sealed.by === "passphrase") key = await stretched(passphrase, sealed.salt as Bytes, sealed.cost ?? COST);
  else key = await ofPrf(await prf(sealed.credential as Bytes, sealed.salt as Bytes));
  try {
    const plain = await crypto.subtle.decrypt(
      { name: "AES-GCM", iv: sealed.iv, additionalData: utf8(address) },
      key,
      sealed.ciphertext,
    );
    return JSON.parse(text(new Uint8Array(plain))) as Secret;
  } catch {
    throw new WrongKey("it does not open");
  }
}

async function seal(key: CryptoKey, secret: Secret, address: string): Promise<{ iv: Bytes; ciphertext: Bytes }> {
  const iv = random(12);
  const plain = utf8(JSON.stringify(secret));
  const made = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: utf8(address) }, key, plain);
  wipe(plain);
  return { iv, ciphertext: new Uint8Array(made) };
}

async function stretched(passphrase: string, salt: Bytes, cost: number): Promise<CryptoKey> {
  const { scryptAsync } = await import("@noble/hashes/scrypt.js");
  const bytes = await scryptAsync(utf8(passphrase.normalize("NFC")), salt, { N: cost, r: 8, p: 1, dkLen: 32 });
  const key = await crypto.subtle.importKey("raw", new Uint8Array(bytes), "AES-GCM", false, ["encrypt", "decrypt"]);
  wipe(bytes);
  return key;
}

async function ofPrf(output: Bytes): Promise<CryptoKey> {
  const material = await crypto.subtle.importKey("raw", output, "HKDF", false, ["deriveKey"]);
  return crypto.subtle.deriveKey(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: utf8("engram vault") },
    material,
    { name: "AES-GCM", length: 256 },
    false,
    ["encrypt", "decrypt"],
  );
}

async function prf(credential: Bytes, salt: Bytes): Promise<Bytes> {
  const given = (await navigator.credentials.get({
    publicKey: {
      challenge: random(32),
      allowCredentials: [{ type: "public-key", id: credential }],
      userVerification: "required",
      extensions: { prf: { eval: { first: salt } } },
    },
  })) as PublicKeyCredential | null;
  const first = given?.getClientExtensionResults().prf?.results?.first as ArrayBuffer | undefined;
  if (!first) throw new WrongKey("this passkey gives no secret");
  return concat(new Uint8Array(first));
}
