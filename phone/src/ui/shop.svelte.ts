// The gateway as the app sees it: its key, prices, terms, and whether it answers.

import { Clock } from "../core/clock";
import { Failure } from "../core/failures";
import { Gateway } from "../core/gateway";
import { units, type Identity, type Metagraph, type Nodes, type Terms, type Tier } from "../core/model";
import { network } from "../core/networks";
import type { Store } from "../core/store";

interface KnownGateway {
  hotkey: string;
  firstSeenAt: number;
  environment: string;
  /** The address that payments go to, by network: the one of the first offer. */
  recipients?: Record<string, string>;
}

interface Shelf {
  tiers: Tier[];
  nodes: Nodes | null;
  terms: Terms | null;
  seenAt: number;
}

/** How long prices and terms are shown before they are read again, and how soon after a reading that failed. */
const SHELF_MS = 300_000;
const AGAIN_MS = 3_000;
const REFUSED_MS = 30_000;

export interface Look {
  name: string;
  accent: string;
  network: string;
}

export class Shop {
  readonly clock = new Clock();
  readonly gateway: Gateway;
  reachable = $state<"unknown" | "yes" | "no">("unknown");
  /** Another key than the one seen first answered: nothing is signed until the person decides. */
  changedTo = $state<string | null>(null);
  known = $state<KnownGateway | null>(null);
  tiers = $state.raw<Tier[]>([]);
  nodes = $state.raw<Nodes | null>(null);
  terms = $state.raw<Terms | null>(null);
  shelfSeenAt = $state(0);
  look = $state.raw<Look>({ name: "Engram", accent: "", network: "" });
  clockOffMs = $state(0);
  #store: Store;
  /** How many readings were begun; the newest of them alone is believed. */
  #begun = 0;
  #newest: Promise<void> = Promise.resolve();
  /** When the last reading ended, by the steady clock; Infinity while one is under way. */
  #readAt = -Infinity;
  #wait = 0;

  constructor(
    store: Store,
    origin: string,
    private readonly steady: () => number = () => performance.now(),
  ) {
    this.#store = store;
    this.gateway = new Gateway(origin, this.clock);
  }

  /** Read what is known of before, then ask. */
  async begin(): Promise<void> {
    this.known = (await this.#store.get<KnownGateway>("gateways", this.gateway.origin)) ?? null;
    if (this.known) this.gateway.hotkey = this.known.hotkey;
    const shelf = await this.#store.get<Shelf>("seen", "shelf");
    if (shelf) this.#show(shelf);
    const look = await this.#store.get<Look>("seen", "look");
    if (look) this.#wear(look);
    this.clock.offsetMs = (await this.#store.get<number>("settings", "clock")) ?? 0;
    this.clockOffMs = this.clock.offsetMs;
  }

  /** Ask for the gateway's key, prices and terms. Never throws; `reachable` says how it went. Of readings that overlap
   * the one begun last counts, and all of them end with it. */
  async refresh(): Promise<void> {
    this.#newest = this.#read(++this.#begun);
    for (let waited: Promise<void> | null = null; waited !== this.#newest; ) {
      waited = this.#newest;
      await waited;
    }
  }

  /** Whether it is time to read again: what is shown is old, or its last reading failed, however other requests went. */
  get due(): boolean {
    return this.steady() - this.#readAt >= (this.reachable === "yes" ? this.#wait : AGAIN_MS);
  }

  async #read(number: number): Promise<void> {
    const overtaken = (): boolean => number !== this.#begun;
    this.#readAt = Infinity;
    let wait = SHELF_MS;
    try {
      const [identity, look] = await Promise.all([
        this.gateway.open<Identity>("/identity"),
        this.gateway.open<Look>("/app/config.json"),
      ]);
      if (overtaken()) return;
      await this.#meet(identity);
      this.#wear(look);
      await this.#store.put("seen", "look", look);
      const [{ tiers }, nodes, terms] = await Promise.all([
        this.gateway.open<{ tiers: Tier[] }>("/tiers"),
        this.gateway.open<Nodes>("/nodes"),
        this.gateway.open<Terms>("/terms"),
      ]);
      if (overtaken()) return;
      const shelf = { tiers: sold(tiers), nodes, terms, seenAt: Date.now() / 1000 };
      this.#show(shelf);
      await this.#store.put("seen", "shelf", shelf);
      this.reachable = "yes";
    } catch (error) {
      if (overtaken()) return;
      this.noted(error);
      const refused = error instanceof Failure && error.kind !== "unreachable";
      wait = refused ? Math.max(REFUSED_MS, (error.retryAfterS ?? 0) * 1_000) : AGAIN_MS;
    }
    if (!overtaken()) [this.#readAt, this.#wait] = [this.steady(), wait];
  }

  /** Take note of how a request went. */
  noted(error: unknown): void {
    if (error instanceof Failure && error.kind === "impostor") this.changedTo = this.changedTo ?? "?";
    this.reachable = error instanceof Failure && error.kind === "unreachable" ? "no" : "yes";
    if (this.clock.offsetMs !== this.clockOffMs) {
      this.clockOffMs = this.clock.offsetMs;
      void this.#store.put("settings", "clock", this.clock.offsetMs);
    }
  }

  /** Go on with the key that the person was shown, whatever answers now; one that was not shown yet is shown first. */
  async trustChanged(): Promise<void> {
    if (this.changedTo === null) return;
    if (this.changedTo === "?") {
      const { hotkey } = await this.gateway.open<Identity>("/identity");
      if (typeof hotkey === "string" && hotkey !== this.known?.hotkey) this.changedTo = hotkey;
      return;
    }
    const hotkey = this.changedTo;
    this.changedTo = null;
    await this.#remember({ hotkey, environment: this.known?.environment ?? "" });
  }

  /** The address that this gateway is paid at on a network; undefined before its first offer there. */
  recipientOn(name: string): string | undefined {
    return this.known?.recipients?.[name];
  }

  /** Remember the address of an offer: the first one, or one that the person has accepted. */
  async noteRecipient(name: string, address: string): Promise<void> {
    if (!this.known || this.recipientOn(name) === address) return;
    this.known = { ...this.known, recipients: { ...this.known.recipients, [name]: address } };
    await this.#store.put("gateways", this.gateway.origin, $state.snapshot(this.known));
  }

  async metagraph(): Promise<Metagraph | null> {
    try {
      return await this.gateway.open<Metagraph>("/bittensor/metagraph?fields=uid,incentive");
    } catch (error) {
      if (error instanceof Failure && error.kind === "refused") return null;
      throw error;
    }
  }

  get network() {
    return network(this.look.network);
  }

  /** What an hour of a tier costs, in atomic units; 0 where the tier is not sold any more. */
  perHour(tier: string): bigint {
    return units(this.tiers.find((each) => each.tier === tier)?.price_usd_per_hour ?? 0);
  }

  get earlyStopPercent(): number {
    return this.terms?.early_stop_refund_percent ?? 0;
  }

  async #meet(identity: Identity): Promise<void> {
    if (typeof identity.hotkey !== "string") throw new Failure("malformed", "no_identity", "the gateway names no key");
    if (this.known && this.known.hotkey !== identity.hotkey) {
      this.changedTo = identity.hotkey;
      return;
    }
    if (!this.known) await this.#remember(identity);
    this.changedTo = null;
  }

  async #remember(identity: Pick<Identity, "hotkey" | "environment">): Promise<void> {
    this.known = { hotkey: identity.hotkey, environment: identity.environment, firstSeenAt: Date.now() / 1000 };
    this.gateway.hotkey = identity.hotkey;
    await this.#store.put("gateways", this.gateway.origin, $state.snapshot(this.known));
  }

  #show(shelf: Shelf): void {
    this.tiers = shelf.tiers;
    this.nodes = shelf.nodes;
    this.terms = shelf.terms;
    this.shelfSeenAt = shelf.seenAt;
  }

  #wear(look: Look): void {
    this.look = look;
    const color = /^#[0-9a-fA-F]{6}$/.test(look.accent) ? look.accent : ""; // "" takes an earlier one away
    document.documentElement.style.setProperty("--accent", color);
  }
}

function sold(tiers: unknown): Tier[] {
  if (!Array.isArray(tiers)) return [];
  return (tiers as Tier[]).filter((each) => typeof each.tier === "string" && each.price_usd_per_hour > 0).slice(0, 12);
}
