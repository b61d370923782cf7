// The spending key: m/44'/60'/0'/0/0 of the same words, so that every EVM wallet opens it and a refund is never lost.
// It pays by EIP-3009 authorizations, which need no gas. Loaded only when something is paid.

import { secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { HDKey } from "@scure/bip32";

import { concat, hex, unhex, utf8, wipe, type Bytes } from "./bytes";
import type { Network } from "./networks";
import { seed } from "./seeds";

export const PATH = "m/44'/60'/0'/0/0";

/** What EIP-3009's TransferWithAuthorization says. Addresses are 0x and 40 hex digits, times unix seconds. */
export interface Authorization {
  from: string;
  to: string;
  value: bigint;
  validAfter: bigint;
  validBefore: bigint;
  nonce: string;
}

export interface Payer {
  readonly address: string;
  /** Return the 65-byte signature in hex (r, s, v with v 27 or 28). */
  authorize(authorization: Authorization, on: Network): Promise<string>;
}

export class SpendingKey implements Payer {
  readonly address: string;
  readonly #secret: Uint8Array;

  constructor(secret: Uint8Array) {
    this.#secret = secret;
    this.address = addressOf(secret);
  }

  static async of(words: string): Promise<SpendingKey> {
    const root = await seed(words);
    const found = HDKey.fromMasterSeed(root).derive(PATH).privateKey;
    wipe(root);
    if (!found) throw new Error("no key at the path");
    return new SpendingKey(found);
  }

  async authorize(authorization: Authorization, on: Network): Promise<string> {
    if (authorization.from.toLowerCase() !== this.address.toLowerCase()) throw new RangeError("another payer's");
    const made = secp256k1.sign(digest(authorization, on), this.#secret, { prehash: false, format: "recovered" });
    return "0x" + hex(concat(made.subarray(1), Uint8Array.of(27 + (made[0] as number))));
  }

  wipe(): void {
    wipe(this.#secret);
  }

  /** A copy of the secret, for an export that the person has asked for. */
  exported(): Bytes {
    return new Uint8Array(this.#secret);
  }
}

/** The address with EIP-55's checksum. */
export function addressOf(secret: Uint8Array): string {
  const point = secp256k1.getPublicKey(secret, false);
  return checksummed("0x" + hex(keccak_256(point.subarray(1)).subarray(12)));
}

export function checksummed(address: string): string {
  const digits = address.slice(2).toLowerCase();
  const hints = hex(keccak_256(utf8(digits)));
  return "0x" + Array.from(digits, (digit, at) => (parseInt(hints[at] as string, 16) > 7 ? digit.toUpperCase() : digit)).join("");
}

const DOMAIN_TYPE = keccak_256(utf8("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"));
const TRANSFER_TYPE = keccak_256(
  utf8(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
  ),
);

/** The 32 bytes that are signed (EIP-712). */
export function digest(authorization: Authorization, on: Network): Uint8Array {
  const domain = keccak_256(
    concat(DOMAIN_TYPE, keccak_256(utf8(on.assetName)), keccak_256(utf8(on.assetVersion)), word(on.chainId), account(on.asset)),
  );
  const message = keccak_256(
    concat(
      TRANSFER_TYPE,
      account(authorization.from),
      account(authorization.to),
      word(authorization.value),
      word(authorization.validAfter),
      word(authorization.validBefore),
      unhex(authorization.nonce),
    ),
  );
  return keccak_256(concat(Uint8Array.of(0x19, 0x01), domain, message));
}

function word(value: bigint): Uint8Array {
  return unhex(value.toString(16).padStart(64, "0"));
}

function account(address: string): Uint8Array {
  return concat(new Uint8Array(12), unhex(address));
}
