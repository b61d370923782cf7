// The payment of somebody's pay link, by a wallet of this browser: written down before it is sent, sent again until its
// outcome is known. It needs no identity.

import { ClockSet } from "../core/clock";
import { Failure } from "../core/failures";
import { timeOf, type PayLink } from "../core/link";
import { check, OfferDiffers, type Offer } from "../core/offer";
import { blocks, next, open, outcomeOf, refundsOf, resumed, sent, type Outcome, type Purchase } from "../core/purchase";
import type { Refund } from "../core/model";
import type { Payer } from "../core/spending";
import type { Store } from "../core/store";
import { signedPurchase, StillOpen } from "./purchases.svelte";
import type { Shop } from "./shop.svelte";

const PATH = "/orders/pay";

export class LinkPayment {
  purchase = $state.raw<Purchase | null>(null);
  refunds = $state.raw<Refund[]>([]);
  /** What the link's time and a payment's are measured by (unix seconds), less the device's. */
  #offS = 0;
  #sending = false;

  constructor(
    private readonly store: Store,
    private readonly shop: Shop,
    private readonly link: PayLink,
    private readonly text: string,
  ) {}

  get now(): number {
    return Date.now() / 1000 + this.#offS;
  }

  /** Read what this browser paid for the link before. */
  async begin(): Promise<void> {
    const mine = (await this.store.all<Purchase>("purchases")).filter((each) => each.buyer === this.#buyer);
    const newest = mine.sort((a, b) => b.createdAt - a.createdAt)[0];
    this.purchase = newest ? resumed(newest) : null;
  }

  /** Ask for the offer. Throws OfferDiffers when it is not what the link says, Failure. */
  async offer(): Promise<Offer> {
    const answer = await this.shop.gateway.openly(PATH, this.#body);
    const { network, amount, recipient } = this.link;
    const known = network ? this.shop.recipientOn(network.name) : undefined;
    if (known !== undefined && known.toLowerCase() !== recipient.toLowerCase()) throw new OfferDiffers("recipient", known, recipient);
    this.#offS = timeOf(this.link, answer.dateS, Date.now() / 1000) - Date.now() / 1000;
    this.shop.clock.compared();
    if (answer.status === 402 && network) return check(answer.body, { network: network.name, amount, recipient });
    const { code, error } = (answer.body ?? {}) as { code?: unknown; error?: unknown };
    throw new Failure("refused", String(code ?? `http_${answer.status}`), String(error ?? "").slice(0, 300), { status: answer.status });
  }

  /** Sign for the offer, write that down, and send it. Throws StillOpen, WalletError, and ClockSet where the offer has
   * to be asked for again. */
  async pay(offer: Offer, payer: Payer): Promise<void> {
    if (this.purchase && this.#stands(this.purchase)) throw new StillOpen(this.purchase);
    if (this.shop.clock.wasSet) throw new ClockSet("the device's clock was set");
    const order = { path: PATH, body: this.#body, tier: this.link.tier, hours: this.link.hours };
    const purchase = await signedPurchase(order, offer, payer, this.#buyer, this.now, this.#deviceS);
    if (!(await this.store.putUnless<Purchase>("purchases", purchase.id, purchase, (each) => this.#stands(each)))) {
      await this.begin(); // another window has paid meanwhile
      throw new StillOpen(this.purchase);
    }
    this.purchase = purchase;
    await this.send();
  }

  /** Send it, or send it again: always the same bytes. Never throws. */
  async send(): Promise<void> {
    const purchase = this.purchase;
    if (!purchase || this.#sending) return;
    this.#sending = true;
    try {
      const leaving = sent(purchase, this.now);
      await this.#keep(open(purchase) && purchase.state !== "signed" ? { ...leaving, state: purchase.state } : leaving);
      const outcome = await this.#attempt(purchase);
      await this.#keep(next(open(purchase) ? { ...leaving, state: purchase.state } : leaving, outcome, this.now, this.#deviceS));
    } finally {
      this.#sending = false;
    }
  }

  /** Send what is due. */
  async work(): Promise<void> {
    if (this.purchase && open(this.purchase) && this.purchase.nextAt <= this.now) await this.send();
  }

  /** Read what became of what was paid. Never throws. */
  async look(): Promise<void> {
    if (this.purchase?.state === "settled") await this.#attempt(this.purchase);
  }

  async #attempt(purchase: Purchase): Promise<Outcome> {
    try {
      const answer = await this.shop.gateway.openly(PATH, this.#body, { "PAYMENT-SIGNATURE": purchase.payment });
      this.shop.noted(null);
      if (answer.status === 202 && answer.signed) this.refunds = refundsOf(answer.body);
      return outcomeOf(answer);
    } catch (error) {
      this.shop.noted(error);
      return { kind: "unknown", retryAfterS: 0 };
    }
  }

  async #keep(purchase: Purchase): Promise<void> {
    this.purchase = purchase;
    await this.store.put("purchases", purchase.id, purchase);
  }

  /** Whether it keeps this browser from paying the link again. */
  get blocked(): boolean {
    return this.purchase !== null && this.#stands(this.purchase);
  }

  #stands(purchase: Purchase): boolean {
    return purchase.buyer === this.#buyer && blocks(purchase, this.now, this.#deviceS);
  }

  get #deviceS(): number {
    return Date.now() / 1000;
  }

  get #body(): string {
    return JSON.stringify({ order: this.text });
  }

  /** In the place of an identity: purchases of links are nobody's here. */
  get #buyer(): string {
    return `link ${this.link.id}`;
  }
}
