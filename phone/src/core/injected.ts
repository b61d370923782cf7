// Wallets that a browser brings (EIP-6963, EIP-1193): they pay like the spending key, by an EIP-3009 authorization.
// A phone's own browser has none; a wallet's built-in browser and desktop extensions do.

import { secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";

import { concat, hex, unhex } from "./bytes";
import type { Network } from "./networks";
import { checksummed, digest, type Authorization, type Payer } from "./spending";

export interface Provider {
  request(call: { method: string; params?: unknown[] }): Promise<unknown>;
}

export type WalletFault = "declined" | "no_account" | "other_chain" | "other_signer";

export class WalletError extends Error {
  constructor(readonly code: WalletFault) {
    super(code);
  }
}

const TYPES = {
  EIP712Domain: [
    { name: "name", type: "string" },
    { name: "version", type: "string" },
    { name: "chainId", type: "uint256" },
    { name: "verifyingContract", type: "address" },
  ],
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
};

const CHAINS: Record<string, { chainName: string; rpcUrls: string[] }> = {
  base: { chainName: "Base", rpcUrls: ["https://mainnet.base.org"] },
  "base-sepolia": { chainName: "Base Sepolia", rpcUrls: ["https://sepolia.base.org"] },
};

export class InjectedPayer implements Payer {
  private constructor(
    readonly address: string,
    private readonly provider: Provider,
  ) {}

  /** Ask the wallet for an account on this network. Call it in the task of the tap. Throws WalletError. */
  static async connect(provider: Provider, on: Network): Promise<InjectedPayer> {
    const [account] = (await asked(provider.request({ method: "eth_requestAccounts" }))) as unknown[];
    if (typeof account !== "string" || !/^0x[0-9a-fA-F]{40}$/.test(account)) throw new WalletError("no_account");
    await onChain(provider, on);
    return new InjectedPayer(checksummed(account), provider);
  }

  /** Ask for the signature. Nothing is awaited before the wallet is called. Throws WalletError. */
  async authorize(authorization: Authorization, on: Network): Promise<string> {
    const typed = {
      types: TYPES,
      primaryType: "TransferWithAuthorization",
      domain: { name: on.assetName, version: on.assetVersion, chainId: Number(on.chainId), verifyingContract: on.asset },
      message: {
        ...authorization,
        value: authorization.value.toString(),
        validAfter: authorization.validAfter.toString(),
        validBefore: authorization.validBefore.toString(),
      },
    };
    const call = { method: "eth_signTypedData_v4", params: [authorization.from, JSON.stringify(typed)] };
    const signature = await asked(this.provider.request(call));
    if (typeof signature !== "string" || signerOf(signature, digest(authorization, on)) !== this.address) {
      throw new WalletError("other_signer");
    }
    return canonical(signature);
  }
}

/** Wallets write the recovery id as 27, 28, 0 or 1; token contracts want the first two. */
function canonical(signature: string): string {
  const bytes = unhex(signature);
  const v = bytes[64] as number;
  return "0x" + hex(concat(bytes.subarray(0, 64), Uint8Array.of(v < 27 ? v + 27 : v)));
}

/** The address that signed, null for what is no signature: contracts' wallets make others, which x402 does not take. */
function signerOf(signature: string, message: Uint8Array): string | null {
  try {
    const bytes = unhex(canonical(signature));
    if (bytes.length !== 65) return null;
    const recoverable = concat(Uint8Array.of((bytes[64] as number) - 27), bytes.subarray(0, 64));
    const point = secp256k1.Point.fromBytes(secp256k1.recoverPublicKey(recoverable, message, { prehash: false }));
    return checksummed("0x" + hex(keccak_256(point.toBytes(false).subarray(1)).subarray(12)));
  } catch {
    return null;
  }
}

async function onChain(provider: Provider, on: Network): Promise<void> {
  const chainId = "0x" + on.chainId.toString(16);
  if (String(await asked(provider.request({ method: "eth_chainId" }))).toLowerCase() === chainId) return;
  try {
    await provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId }] });
  } catch (error) {
    const known = CHAINS[on.name];
    if (codeOf(error) !== 4902 || !known) throw new WalletError(codeOf(error) === 4001 ? "declined" : "other_chain");
    const nativeCurrency = { name: "Ether", symbol: "ETH", decimals: 18 };
    await asked(provider.request({ method: "wallet_addEthereumChain", params: [{ chainId, nativeCurrency, ...known }] }));
  }
}

async function asked(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    throw new WalletError(codeOf(error) === 4001 ? "declined" : "no_account");
  }
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}
