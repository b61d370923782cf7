// Pay links that this identity made: one at a time, looked at until it is paid or over.

import { Failure } from "../core/failures";
import { readLink } from "../core/link";
import type { OpenIdentity } from "../core/identity";
import type { Network } from "../core/networks";
import { OfferDiffers } from "../core/offer";
import type { Store } from "../core/store";
import type { Order } from "./purchases.svelte";
import type { Shop } from "./shop.svelte";

export type LinkStatus = "open" | "pending" | "paid" | "expired";

export interface MadeLink {
  buyer: string;
  /** The order's text: whoever has it can pay it. */
  text: string;
  url: string;
  tier: string;
  hours: number;
  amount: string;
  expiresAt: number;
  status: LinkStatus;
  sessionId: string | null;
}

const EVERY_S = 3;
/** Past its end a link may still be paid by what came in time. */
const LINGERS_S = 600;

export class Links {
  made = $state.raw<MadeLink | null>(null);
  #store: Store;
  #shop: Shop;
  #identity: () => OpenIdentity | null;
  #paid: (sessionId: string) => void;
  #nextAt = 0;

  constructor(store: Store, shop: Shop, identity: () => OpenIdentity | null, paid: (sessionId: string) => void) {
    this.#store = store;
    this.#shop = shop;
    this.#identity = identity;
    this.#paid = paid;
  }

  async begin(): Promise<void> {
    this.made = (await this.#store.get<MadeLink>("settings", "link")) ?? null;
  }

  /** The link of this buyer that can still bring something. */
  current(buyer: string | null, now: number): MadeLink | null {
    const made = this.made;
    return made && made.buyer === buyer && made.status !== "paid" && now < made.expiresAt + LINGERS_S ? made : null;
  }

  /** Make a link for an order. Throws OfferDiffers when it is not what the screen showed, Failure. */
  async make(order: Order, shown: { amount: bigint; network: Network }): Promise<MadeLink> {
    const identity = this.#identity();
    if (!identity) throw new Failure("refused", "locked", "the identity is locked");
    const session = /^\/sessions\/([^/]+)\/extend$/.exec(order.path)?.[1] ?? null;
    const body = JSON.stringify({ ...(JSON.parse(order.body) as object), ...(session ? { session_id: session } : {}) });
    const answer = await this.#shop.gateway.get<{ order?: unknown }>(identity.signer, "POST", "/orders", body);
    const text = String(answer.order ?? "");
    const link = await readLink(text, this.#shop.gateway.hotkey ?? "");
    demand("amount", shown.amount.toString(), link.amount.toString());
    demand("network", shown.network.name, link.network?.name ?? "?");
    const recipient = this.#shop.recipientOn(shown.network.name);
    if (recipient !== undefined) demand("recipient", recipient.toLowerCase(), link.recipient.toLowerCase());
    demand("accepts", [order.tier, order.hours, session].join(" "), [link.tier, link.hours, link.sessionId].join(" "));
    const made: MadeLink = {
      buyer: identity.address,
      text,
      url: urlOf(text),
      tier: link.tier,
      hours: link.hours,
      amount: link.amount.toString(),
      expiresAt: link.expiresAt,
      status: "open",
      sessionId: null,
    };
    await this.#keep(made);
    return made;
  }

  /** Look whether it was paid, every few seconds while it can be. Never throws. */
  async work(): Promise<void> {
    const identity = this.#identity();
    const now = this.#shop.clock.nowS();
    const made = identity && this.current(identity.address, now);
    if (!identity || !made || now < this.#nextAt) return;
    this.#nextAt = now + EVERY_S;
    try {
      const body = JSON.stringify({ order: made.text });
      const found = await this.#shop.gateway.get<{ status?: LinkStatus; session_id?: string | null }>(identity.signer, "POST", "/orders/status", body);
      const status = found.status ?? made.status;
      if (status === made.status) return;
      await this.#keep({ ...made, status, sessionId: found.session_id ?? null });
      if (status === "paid" && found.session_id) this.#paid(found.session_id);
    } catch (error) {
      this.#shop.noted(error);
    }
  }

  async #keep(made: MadeLink): Promise<void> {
    this.made = made;
    await this.#store.put("settings", "link", made);
  }
}

function urlOf(text: string): string {
  return `${location.origin}${location.pathname}#/pay/${text}`;
}

function demand(field: "amount" | "network" | "recipient" | "accepts", expected: string, found: string): void {
  if (expected !== found) throw new OfferDiffers(field, expected, found);
}
