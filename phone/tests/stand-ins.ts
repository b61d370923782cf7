// A device's storage and a gateway, for tests of what stands above them.

import { vi } from "vitest";

import { hex, sha256, utf8 } from "../src/core/bytes";
import { Clock } from "../src/core/clock";
import { Gateway } from "../src/core/gateway";
import { secretOfWords } from "../src/core/identity";
import { signerOf, type Signer } from "../src/core/keys";
import { network } from "../src/core/networks";
import type { Store } from "../src/core/store";
import { entropyOf, make } from "../src/core/words";
import type { Shop } from "../src/ui/shop.svelte";
import { Wallet } from "../src/ui/wallet.svelte";

vi.stubGlobal("navigator", {}); // Node 20 has none

export const NETWORK = network("base")!;
export const RECIPIENT = "0x" + "11".repeat(20);

export class MemoryStore implements Store {
  readonly kept = new Map<string, unknown>();

  async get<T>(store: string, key: string): Promise<T | undefined> {
    return structuredClone(this.kept.get(`${store}|${key}`)) as T | undefined;
  }

  async all<T>(store: string): Promise<T[]> {
    return [...this.kept].filter(([key]) => key.startsWith(`${store}|`)).map(([, value]) => structuredClone(value) as T);
  }

  async put(store: string, key: string, value: unknown): Promise<void> {
    this.kept.set(`${store}|${key}`, structuredClone(value));
  }

  async putUnless<T>(store: string, key: string, value: unknown, against: (kept: T) => boolean): Promise<boolean> {
    const values = [...this.kept].filter(([name]) => name.startsWith(`${store}|`)).map(([, each]) => each as T);
    if (values.some(against)) return false;
    this.kept.set(`${store}|${key}`, structuredClone(value));
    return true;
  }

  async remove(store: string, key: string): Promise<void> {
    this.kept.delete(`${store}|${key}`);
  }

  async clear(): Promise<void> {
    this.kept.clear();
  }
}

export interface Reply {
  status: number;
  body: unknown;
  unsigned?: boolean;
}

/** A gateway whose `reply` is asked for each request, and which signs what it says. */
export async function standIn(reply: (init: RequestInit, path: string) => Reply | Promise<Reply>, device: () => number = Date.now, steady: () => number = () => performance.now()): Promise<{ shop: Shop; gateway: Gateway; paid: string[]; key: Signer }> {
  const key = await signerOf(entropyOf(make()));
  const paid: string[] = [];
  const clock = new Clock(device, steady);
  const gateway = new Gateway("https://gateway.example", clock, async (url, init) => {
    const headers = init.headers as Record<string, string>;
    const payment = headers["PAYMENT-SIGNATURE"];
    if (payment && !paid.includes(payment)) paid.push(payment);
    const { status, body, unsigned = false } = await reply(init, url.slice("https://gateway.example".length));
    const text = JSON.stringify(body);
    const message = `engram-gateway:${status}:${headers["X-Timestamp"]}:${hex(await sha256(utf8(text)))}`;
    const vouched = { "X-Gateway-Hotkey": key.address, "X-Gateway-Sig": hex(key.sign(utf8(message))) };
    return new Response(text, { status, headers: unsigned ? {} : vouched });
  });
  gateway.hotkey = key.address;
  const recipients: Record<string, string> = {};
  const shop = {
    gateway,
    clock,
    noted: () => undefined,
    recipientOn: (name: string) => recipients[name],
    noteRecipient: async (name: string, address: string) => void (recipients[name] = address),
  };
  return { shop: shop as unknown as Shop, gateway, paid, key };
}

export function paying(init: RequestInit): boolean {
  return "PAYMENT-SIGNATURE" in (init.headers as Record<string, string>);
}

/** A 402 that asks for 0.10 dollars. */
export function offerOf(changes: Record<string, unknown> = {}): Reply {
  const offer = {
    scheme: "exact",
    network: "base",
    asset: NETWORK.asset,
    extra: { name: NETWORK.assetName, version: NETWORK.assetVersion },
    maxAmountRequired: "100000",
    payTo: RECIPIENT,
    maxTimeoutSeconds: 300,
    ...changes,
  };
  return { status: 402, body: { accepts: [offer] } };
}

export const ORDER = { path: "/sessions", body: '{"tier":"lite","duration_hours":1}', tier: "lite", hours: 1 };
export const SHOWN = { network: "base", amount: 100_000n };

/** A wallet with one identity, kept in a store of its own. */
export async function openWallet(store: Store = new MemoryStore()): Promise<Wallet> {
  const wallet = new Wallet(store);
  await wallet.add(await secretOfWords(make()), "me", true);
  return wallet;
}
