// Purchases: written down before they are sent, sent again until their outcome is known.

import { base64, hex, random, utf8 } from "../core/bytes";
import { ClockSet } from "../core/clock";
import { Failure } from "../core/failures";
import type { OpenIdentity } from "../core/identity";
import { check, type Offer, type Shown } from "../core/offer";
import { authorizationOf, blocks, next, open, outcomeOf, resumed, sent, type Outcome, type Purchase } from "../core/purchase";
import { checksummedLazily } from "../core/spending-lazily";
import type { Payer } from "../core/spending";
import type { Store } from "../core/store";
import type { Shop } from "./shop.svelte";

export interface Order {
  path: string;
  body: string;
  tier: string;
  hours: number;
}

/** What the gateway knows of payments that another device of this identity made. */
export interface OtherDevices {
  /** Ask it. Never throws. */
  refresh(): Promise<void>;
  /** Whether it was asked. */
  readonly loaded: boolean;
  readonly pending: boolean;
}

/** Another purchase is not over yet. */
export class StillOpen extends Error {
  constructor(readonly purchase: Purchase | null) {
    super("another payment is still open");
  }
}

/** Another window took over while this one waited for the signature. */
export class TurnLost extends Error {}

/** Sign for an offer at `now` (unix seconds): the purchase as it is written down before anything is sent. */
export async function signedPurchase(order: Order, offer: Offer, key: Payer, buyer: string, now: number, device: number): Promise<Purchase> {
  const authorization = authorizationOf(key.address, offer, now, "0x" + hex(random(32)));
  const signature = await key.authorize(authorization, offer.network);
  const texts = {
    from: authorization.from,
    to: await checksummedLazily(authorization.to),
    value: authorization.value.toString(),
    validAfter: authorization.validAfter.toString(),
    validBefore: authorization.validBefore.toString(),
    nonce: authorization.nonce,
  };
  const accepted = {
    scheme: "exact",
    network: offer.network.caip2,
    amount: texts.value,
    asset: offer.network.asset,
    payTo: texts.to,
    maxTimeoutSeconds: offer.timeoutS,
    extra: { name: offer.network.assetName, version: offer.network.assetVersion },
  };
  const payment = base64(utf8(JSON.stringify({ x402Version: 2, accepted, payload: { signature, authorization: texts } })));
  return {
    id: hex(random(16)),
    buyer,
    path: order.path,
    body: order.body,
    tier: order.tier,
    hours: order.hours,
    amount: texts.value,
    network: offer.network.name,
    recipient: texts.to,
    authorization: texts,
    payment,
    state: "signed",
    createdAt: now,
    deviceAt: device,
    attempts: 0,
    nextAt: now,
    sessionId: null,
    paymentId: null,
    code: null,
    message: null,
  };
}

export class Purchases {
  all = $state.raw<Purchase[]>([]);
  #store: Store;
  #shop: Shop;
  #identity: () => OpenIdentity | null;
  #changed: (purchase: Purchase) => void;
  #devices: OtherDevices;
  #mine: () => boolean;
  #sending = new Set<string>();

  /** `mine` says whether this window is the one that signs. */
  constructor(
    store: Store,
    shop: Shop,
    identity: () => OpenIdentity | null,
    changed: (purchase: Purchase) => void,
    devices: OtherDevices,
    mine: () => boolean,
  ) {
    this.#store = store;
    this.#shop = shop;
    this.#identity = identity;
    this.#changed = changed;
    this.#devices = devices;
    this.#mine = mine;
  }

  /** Read what is kept, which another window may have written. */
  async begin(): Promise<void> {
    const kept = await this.#store.all<Purchase>("purchases");
    this.all = kept.map((each) => (this.#sending.has(each.id) ? each : resumed(each))).sort((a, b) => b.createdAt - a.createdAt);
  }

  /** The one of this buyer that stands in the way of another, if any. */
  blocking(buyer: string): Purchase | null {
    return this.all.find((each) => this.#stands(each, buyer)) ?? null;
  }

  /** Ask what an order costs. Throws OfferDiffers when it is not what the screen showed, Failure. */
  async offer(order: Order, shown: Shown): Promise<Offer> {
    const identity = this.#require();
    // Read now what `pay` has to know: between the tap and the wallet nothing may be waited for.
    await Promise.all([this.begin(), this.#devices.refresh()]);
    if (!this.#devices.loaded) throw new Failure("unreachable", "sessions_unknown", "the sessions of this identity could not be read");
    const answer = await this.#shop.gateway.ask(identity.signer, "POST", order.path, order.body);
    this.#shop.noted(null);
    if (answer.status === 402 && answer.signed) {
      const recipient = this.#shop.recipientOn(shown.network);
      const offer = check(answer.body, recipient === undefined ? shown : { ...shown, recipient });
      await this.#shop.noteRecipient(shown.network, offer.recipient);
      return offer;
    }
    const outcome = outcomeOf(answer);
    const said = outcome.kind === "refused" || outcome.kind === "closed" ? outcome : { code: `http_${answer.status}`, message: "" };
    throw new Failure("refused", said.code, said.message, { status: answer.status, retryAfterS: answer.retryAfterS });
  }

  /** Sign for an offer that was confirmed, write that down, and send it. Nothing is waited for before a given `payer` is
   * asked: wallets and passkeys answer only in the task of a tap. A signature that came after another window
   * paid or took over is thrown away. Throws StillOpen, TurnLost, and ClockSet where the offer has to be asked for again. */
  async pay(order: Order, offer: Offer, payer?: Payer): Promise<Purchase> {
    const identity = this.#require();
    const standing = this.blocking(identity.address);
    if (standing || !this.#devices.loaded || this.#devices.pending) throw new StillOpen(standing);
    if (this.#shop.clock.wasSet) throw new ClockSet("the device's clock was set");
    const purchase = await signedPurchase(order, offer, payer ?? (await identity.spending()), identity.address, ...this.#times);
    if (!this.#mine()) throw new TurnLost("another window signs now");
    if (!(await this.#store.putUnless<Purchase>("purchases", purchase.id, purchase, (each) => this.#stands(each, identity.address)))) {
      await this.begin();
      throw new StillOpen(this.blocking(identity.address));
    }
    this.#show(purchase);
    return this.send(purchase);
  }

  /** Send a purchase, or send it again: always the same bytes. Never throws for what the network does. */
  async send(purchase: Purchase): Promise<Purchase> {
    const identity = this.#require();
    if (this.#sending.has(purchase.id)) return purchase;
    this.#sending.add(purchase.id);
    try {
      const leaving = sent(purchase, this.#shop.clock.nowS());
      // What it was before says more than "sent" while it is asked again.
      await this.#keep(open(purchase) && purchase.state !== "signed" ? { ...leaving, state: purchase.state } : leaving);
      const outcome = await this.#attempt(identity, leaving);
      return await this.#keep(next(open(purchase) ? { ...leaving, state: purchase.state } : leaving, outcome, ...this.#times));
    } finally {
      this.#sending.delete(purchase.id);
    }
  }

  /** Send what is due. */
  async work(): Promise<void> {
    const identity = this.#identity();
    if (!identity) return;
    const now = this.#shop.clock.nowS();
    for (const purchase of this.all) {
      if (purchase.buyer === identity.address && open(purchase) && purchase.nextAt <= now) await this.send(purchase);
    }
  }

  async #attempt(identity: OpenIdentity, purchase: Purchase): Promise<Outcome> {
    try {
      const answer = await this.#shop.gateway.ask(identity.signer, "POST", purchase.path, purchase.body, {
        "PAYMENT-SIGNATURE": purchase.payment,
      });
      this.#shop.noted(null);
      return outcomeOf(answer);
    } catch (error) {
      this.#shop.noted(error);
      return { kind: "unknown", retryAfterS: 0 };
    }
  }

  /** The time by the gateway, and by this device (unix seconds). */
  get #times(): [number, number] {
    return [this.#shop.clock.nowS(), this.#shop.clock.deviceS()];
  }

  #stands(purchase: Purchase, buyer: string): boolean {
    return purchase.buyer === buyer && blocks(purchase, ...this.#times);
  }

  #require(): OpenIdentity {
    const identity = this.#identity();
    if (!identity) throw new Failure("refused", "locked", "the identity is locked");
    return identity;
  }

  async #keep(purchase: Purchase): Promise<Purchase> {
    await this.#store.put("purchases", purchase.id, purchase);
    return this.#show(purchase);
  }

  #show(purchase: Purchase): Purchase {
    this.all = [purchase, ...this.all.filter((each) => each.id !== purchase.id)].sort((a, b) => b.createdAt - a.createdAt);
    this.#changed(purchase);
    return purchase;
  }
}
