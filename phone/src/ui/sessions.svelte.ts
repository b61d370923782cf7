// The identity's sessions: the last known state, told live where a stream can be had.

import { follow, type SessionEvent } from "../core/events";
import type { OpenIdentity } from "../core/identity";
import { ended, running, type Payment, type Session, type Stats } from "../core/model";
import type { Store } from "../core/store";
import type { Shop } from "./shop.svelte";

export interface SeenSession {
  session: Session;
  /** Unix seconds, by the gateway's clock. */
  seenAt: number;
  statsSeenAt: number;
  /** What happened to it so far, with its times (unix seconds). */
  steps?: Step[];
}

export interface Step {
  what: string;
  at: number;
}

export interface Point {
  at: number;
  vectors: number | null;
  latency: number | null;
}

const POLL_S = 30;
const MOST_POINTS = 240;
const MOST_STEPS = 50;
const MOST_ENDED = 5;
/** Ended sessions whose refunds are looked for. */
const MOST_READ = 10;

export class Sessions {
  all = $state.raw<SeenSession[]>([]);
  live = $state<Record<string, boolean>>({});
  points = $state.raw<Record<string, Point[]>>({});
  payments = $state.raw<Record<string, Payment>>({});
  loaded = $state(false);
  /** Sessions that ended since this device last saw them run, until the person has seen it. */
  ended = $state.raw<string[]>([]);
  /** Ids of payments of this identity whose outcome the gateway does not know yet, whichever device made them. */
  unsettled = $state.raw<string[]>([]);
  #store: Store;
  #shop: Shop;
  #following = new Map<string, AbortController>();
  #identity: OpenIdentity | null = null;
  /** Numbers what is asked and what is heard, as they come. */
  #order = 0;
  /** The number of what each session is shown by: an answer does not put back what came after it was asked for. */
  #shownBy = new Map<string, number>();

  constructor(store: Store, shop: Shop) {
    this.#store = store;
    this.#shop = shop;
  }

  /** Show what was known of this identity, then ask. */
  async begin(identity: OpenIdentity): Promise<void> {
    this.stop();
    this.#identity = identity;
    this.all = (await this.#store.get<SeenSession[]>("seen", `sessions ${identity.address}`)) ?? [];
    this.ended = (await this.#store.get<string[]>("seen", `ended ${identity.address}`)) ?? [];
    this.payments = (await this.#store.get<Record<string, Payment>>("seen", `payments ${identity.address}`)) ?? {};
    await this.refresh();
  }

  /** Ask for all sessions. Never throws. */
  async refresh(): Promise<void> {
    const identity = this.#identity;
    if (!identity || this.#shop.gateway.hotkey === null) return;
    const asked = ++this.#order;
    try {
      const { sessions, open_payments: unsettled } = await this.#shop.gateway.get<{ sessions: Session[]; open_payments?: unknown }>(
        identity.signer,
        "GET",
        `/sessions/hotkey/${identity.address}`,
      );
      this.#shop.noted(null);
      if (identity !== this.#identity) return; // another one was opened meanwhile
      const now = this.#shop.clock.nowS();
      const later = this.all.filter(({ session }) => this.#isLater(session, asked));
      const listed = sessions.filter((session) => !this.#isLater(session, asked));
      const over = listed.filter((session) => this.#hasEnded(session));
      this.#show([...later, ...listed.map((session) => this.#seen(session, now, asked))]);
      this.unsettled = Array.isArray(unsettled) ? unsettled.map(String) : [];
      this.loaded = true;
      await this.#remember();
      for (const session of over) await this.#over(session);
      for (const { session } of this.all) if (!ended(session)) this.#follow(session.session_id);
      await this.#readRefunds();
    } catch (error) {
      this.#shop.noted(error);
    }
  }

  /** Whether the gateway waits for a payment of this identity, for a node or for more time, whichever device made it. */
  get pending(): boolean {
    return this.unsettled.length > 0 || this.all.some(({ session }) => session.status === "payment_pending");
  }

  find(sessionId: string): SeenSession | null {
    return this.all.find((each) => each.session.session_id === sessionId) ?? null;
  }

  /** Whether a session is old news: its stream is dead and it was not read lately. */
  stale(seen: SeenSession, now: number): boolean {
    return !this.live[seen.session.session_id] && now - seen.seenAt > POLL_S;
  }

  /** Take a session that was heard of, or that came with an answer. */
  async #take(session: Session, asked = ++this.#order): Promise<void> {
    if (this.#isLater(session, asked)) return;
    const over = this.#hasEnded(session);
    const seen = this.#seen(session, this.#shop.clock.nowS(), asked);
    this.#show([seen, ...this.all.filter((each) => each.session.session_id !== session.session_id)]);
    await this.#remember();
    if (over) await this.#over(session);
    if (!ended(session)) this.#follow(session.session_id);
  }

  /** Note that the person has seen that a session is over. */
  async saw(sessionId: string): Promise<void> {
    const identity = this.#identity;
    if (!identity || !this.ended.includes(sessionId)) return;
    this.ended = this.ended.filter((each) => each !== sessionId);
    await this.#store.put("seen", `ended ${identity.address}`, this.ended);
  }

  /** Stop a session for good. Throws Failure. */
  async end(sessionId: string): Promise<void> {
    const identity = this.#identity;
    if (!identity) return;
    await this.#shop.gateway.get(identity.signer, "DELETE", `/sessions/${sessionId}`);
    await this.read(sessionId);
  }

  /** Say that what the node had lost is there again. Throws Failure. */
  async markRestored(sessionId: string, emptiedAt: number): Promise<void> {
    const identity = this.#identity;
    if (!identity) return;
    const body = JSON.stringify({ emptied_at: emptiedAt });
    await this.#ask(identity, "POST", `/sessions/${sessionId}/restored`, body);
  }

  /** Read one session. Throws Failure. */
  async read(sessionId: string): Promise<void> {
    const identity = this.#identity;
    if (!identity) return;
    await this.#ask(identity, "GET", `/sessions/${sessionId}`);
  }

  /** Read what became of a payment and its refunds. Never throws. */
  async readPayment(paymentId: string): Promise<void> {
    const identity = this.#identity;
    if (!identity || !paymentId) return;
    try {
      const payment = await this.#shop.gateway.get<Payment>(identity.signer, "GET", `/payments/${paymentId}`);
      if (identity !== this.#identity) return;
      this.payments = { ...this.payments, [paymentId]: payment };
      await this.#store.put("seen", `payments ${identity.address}`, this.payments);
    } catch (error) {
      this.#shop.noted(error);
    }
  }

  /** After the app was hidden: what it shows is old, and its streams may be dead without a word. */
  async wake(): Promise<void> {
    for (const [sessionId, following] of this.#following) {
      following.abort();
      this.#following.delete(sessionId);
    }
    await this.refresh();
  }

  /** End its streams and forget the identity, whose key is closed. */
  leave(): void {
    this.stop();
    this.#identity = null;
    this.payments = {};
    this.ended = [];
    this.points = {};
    this.live = {};
  }

  stop(): void {
    for (const following of this.#following.values()) following.abort();
    this.#following.clear();
    this.#shownBy.clear();
    this.all = [];
    this.unsettled = [];
    this.loaded = false;
  }

  #follow(sessionId: string): void {
    const identity = this.#identity;
    if (!identity || this.#following.has(sessionId)) return;
    const abort = new AbortController();
    this.#following.set(sessionId, abort);
    const listener = {
      event: (event: SessionEvent) => void this.#heard(sessionId, event),
      live: (is: boolean) => {
        this.live = { ...this.live, [sessionId]: is };
      },
    };
    // Of a session that starts, all that happened is asked for: its steps are shown with their times.
    const session = this.find(sessionId)?.session;
    const after = session && !running(session) ? "0" : "";
    void follow(this.#shop.gateway, identity.signer, sessionId, listener, abort.signal, after).finally(() => {
      if (this.#following.get(sessionId) === abort) this.#following.delete(sessionId);
    });
  }

  async #heard(sessionId: string, event: SessionEvent): Promise<void> {
    const data = (event.data ?? {}) as { what?: string; at?: number; details?: { event?: string }; session?: Session; stats?: Stats; age_s?: number };
    if (event.name === "state" && data.session?.session_id === sessionId) {
      const what = data.details?.event ?? data.what;
      if (what && data.at) this.#note(sessionId, what, data.at);
      await this.#take(data.session);
    } else if (event.name === "stats" && data.stats) {
      const seen = this.find(sessionId);
      if (!seen) return;
      const now = this.#shop.clock.nowS();
      const session = { ...seen.session, stats: data.stats, stats_age_s: data.age_s ?? 0 };
      this.#plot(sessionId, data.stats, now);
      const next = { ...seen, session, statsSeenAt: now - (data.age_s ?? 0) };
      this.all = this.all.map((each) => (each === seen ? next : each));
    } else if (event.name === "end") {
      await this.read(sessionId).catch((error: unknown) => this.#shop.noted(error));
    }
  }

  /** Note that this device checked what the node's memory is signed by. */
  async proven(sessionId: string): Promise<void> {
    this.#note(sessionId, "proven", this.#shop.clock.nowS());
    await this.#remember();
  }

  #note(sessionId: string, what: string, at: number): void {
    const seen = this.find(sessionId);
    if (!seen || seen.steps?.some((each) => each.what === what && each.at === at)) return;
    const next = { ...seen, steps: [...(seen.steps ?? []), { what, at }].slice(-MOST_STEPS) };
    this.all = this.all.map((each) => (each === seen ? next : each));
  }

  #plot(sessionId: string, stats: Stats, at: number): void {
    const point = { at, vectors: stats.vectors ?? null, latency: stats.p50_latency_ms ?? null };
    const points = [...(this.points[sessionId] ?? []), point].slice(-MOST_POINTS);
    this.points = { ...this.points, [sessionId]: points };
  }

  /** Whether this device saw it run, and it is over now. */
  #hasEnded(session: Session): boolean {
    const before = this.find(session.session_id)?.session;
    return before !== undefined && !ended(before) && ended(session);
  }

  async #over(session: Session): Promise<void> {
    const identity = this.#identity;
    if (!identity) return;
    await this.readPayment(session.payment_id);
    this.ended = [session.session_id, ...this.ended].slice(0, MOST_ENDED);
    await this.#store.put("seen", `ended ${identity.address}`, this.ended);
  }

  /** Read again what is on its way back, and what was never read. */
  async #readRefunds(): Promise<void> {
    for (const { session } of this.all.slice(0, MOST_READ)) {
      const known = this.payments[session.payment_id];
      const due = known?.refunds.some((each) => each.status !== "refunded");
      if (ended(session) && (known === undefined || due)) await this.readPayment(session.payment_id);
    }
  }

  async #ask(identity: OpenIdentity, method: string, path: string, body?: string): Promise<void> {
    const asked = ++this.#order;
    const session = await this.#shop.gateway.get<Session>(identity.signer, method, path, body);
    if (identity === this.#identity) await this.#take(session, asked);
  }

  #isLater(session: Session, asked: number): boolean {
    return (this.#shownBy.get(session.session_id) ?? 0) > asked;
  }

  #show(all: SeenSession[]): void {
    this.all = all.sort((a, b) => b.session.created_at - a.session.created_at);
  }

  #seen(session: Session, now: number, asked: number): SeenSession {
    this.#shownBy.set(session.session_id, asked);
    const age = session.stats_age_s ?? 0;
    return { session, seenAt: now, statsSeenAt: now - age, steps: this.find(session.session_id)?.steps ?? [] };
  }

  async #remember(): Promise<void> {
    const identity = this.#identity;
    if (identity) await this.#store.put("seen", `sessions ${identity.address}`, this.all);
  }
}
