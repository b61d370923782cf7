// The app: what is shown, and the parts that know.

import { takeTurn, type Turn } from "../core/locks";
import { open, type Purchase } from "../core/purchase";
import { open as openStore, type Store } from "../core/store";
import { isUsed, Reload } from "../core/reload";
import { Handover } from "./handover.svelte";
import { Links } from "./links.svelte";
import { Purchases } from "./purchases.svelte";
import { Sessions } from "./sessions.svelte";
import { Shop } from "./shop.svelte";
import { Wallet } from "./wallet.svelte";
import { texts, type Language } from "./words.svelte";

export type Phase = "starting" | "insecure" | "no_storage" | "welcome" | "locked" | "open";
export type Theme = "auto" | "light" | "dark";

const TICK_MS = 1_000;
const TURN_MS = 1_000;
const POLL_TICKS = 30;

class App {
  phase = $state<Phase>("starting");
  route = $state("");
  now = $state(Date.now() / 1000);
  /** Whether this window is the one that signs. */
  mine = $state(false);
  /** Whether another window is known to sign: not before this one has had time to get its turn. */
  elsewhere = $state(false);
  theme = $state<Theme>("auto");
  hidden = $state(false);
  updateReady = $state(false);
  /** A newer build is there that the key of this one did not sign. */
  updateRefused = $state(false);
  installable = $state.raw<{ prompt(): Promise<unknown> } | null>(null);
  store!: Store;
  shop!: Shop;
  wallet!: Wallet;
  purchases!: Purchases;
  sessions!: Sessions;
  links!: Links;
  handover!: Handover;
  #turn: Turn | null = null;
  #reload = new Reload(() => location.reload(), () => isUsed(document));
  #ticks = 0;
  #turns = 0;
  #waiting: ServiceWorker | null = null;
  #registration: ServiceWorkerRegistration | null = null;

  async start(): Promise<void> {
    await texts.choose(texts.preferred);
    this.#routes();
    if (!window.isSecureContext) {
      this.phase = "insecure";
      return;
    }
    try {
      this.store = await openStore();
    } catch {
      this.phase = "no_storage";
      return;
    }
    await this.#settings();
    this.shop = new Shop(this.store, location.origin);
    this.wallet = new Wallet(this.store);
    this.sessions = new Sessions(this.store, this.shop);
    this.purchases = new Purchases(this.store, this.shop, () => this.wallet.open, (purchase) => this.#bought(purchase), this.sessions, () => this.mine);
    this.links = new Links(this.store, this.shop, () => this.wallet.open, (sessionId) => this.#paidByLink(sessionId));
    this.handover = new Handover(this.store, this.shop, () => this.wallet.open);
    await Promise.all([this.shop.begin(), this.wallet.begin(), this.purchases.begin(), this.links.begin(), this.handover.begin()]);
    this.#turn = takeTurn((mine) => void this.#signs(mine));
    setTimeout(() => (this.elsewhere = !this.mine), TURN_MS);
    // Before the gateway is asked, which may take its time: what happens meanwhile is not missed.
    setInterval(() => void this.#tick(), TICK_MS);
    const wake = () => void this.#woken();
    document.addEventListener("visibilitychange", wake);
    window.addEventListener("pageshow", (event) => event.persisted && wake());
    window.addEventListener("beforeinstallprompt", (event) => {
      event.preventDefault();
      this.installable = event as unknown as { prompt(): Promise<unknown> };
    });
    await this.enter();
  }

  /** Show what fits the wallet: welcome, locked or open. */
  async enter(): Promise<void> {
    if (this.wallet.open) {
      this.phase = "open";
      const known = this.sessions.begin(this.wallet.open);
      await Promise.all([this.shop.refresh(), known]);
      // The first reading of the sessions had to wait for the gateway's key.
      if (!this.sessions.loaded) await this.sessions.refresh();
      return;
    }
    this.sessions.leave();
    this.phase = this.wallet.current ? "locked" : "welcome";
    await this.shop.refresh();
  }

  go(route: string): void {
    location.hash = "#/" + route;
  }

  /** Sign in this window from now on. */
  takeOver(): void {
    this.#turn?.release();
    this.#turn = takeTurn((mine) => void this.#signs(mine), true);
  }

  async setTheme(theme: Theme): Promise<void> {
    this.theme = theme;
    document.documentElement.dataset.theme = theme;
    await this.store.put("settings", "theme", theme);
  }

  async setLanguage(language: Language): Promise<void> {
    await texts.choose(language);
    await this.store.put("settings", "language", language);
  }

  /** Register the worker that shows the app when the gateway is away. */
  async installWorker(url: string): Promise<void> {
    const registration = await navigator.serviceWorker.register(url, { scope: "/app/", updateViaCache: "none" });
    this.#registration = registration;
    const offer = async (worker: ServiceWorker | null): Promise<void> => {
      if (!worker || !navigator.serviceWorker.controller) return;
      const { isOffered } = await import("../core/build");
      const offered = await isOffered(__BUILD_KEY__.key);
      this.updateRefused = !offered;
      if (!offered) return;
      this.#waiting = worker;
      this.updateReady = true;
    };
    void offer(registration.waiting);
    registration.addEventListener("updatefound", () => {
      const worker = registration.installing;
      worker?.addEventListener("statechange", () => worker.state === "installed" && void offer(worker));
    });
    navigator.serviceWorker.addEventListener("controllerchange", () => {
      this.#reload.due = this.updateReady; // another window may have taken it, in the midst of what is done in this one
      this.#reload.look(this.busy);
    });
  }

  /** Take the update that waits; never while a payment is open. */
  update(): void {
    if (!this.busy) this.#waiting?.postMessage("take over");
  }

  get busy(): boolean {
    return this.route.startsWith("pay/") || (this.purchases?.all.some((each) => open(each)) ?? false);
  }

  /** Unix seconds by the gateway's clock. */
  get time(): number {
    return this.now + (this.shop?.clockOffMs ?? 0) / 1000;
  }

  /** The turn came or went. Before it is used, what the window before has written down is read. */
  async #signs(mine: boolean): Promise<void> {
    const change = ++this.#turns;
    this.mine = false;
    if (mine) await Promise.all([this.purchases.begin(), this.links.begin()]);
    if (change !== this.#turns) return; // it went again meanwhile
    this.elsewhere = !mine;
    this.mine = mine;
  }

  async #settings(): Promise<void> {
    this.theme = (await this.store.get<Theme>("settings", "theme")) ?? "auto";
    document.documentElement.dataset.theme = this.theme;
    const language = await this.store.get<Language>("settings", "language");
    if (language) await texts.choose(language);
  }

  #routes(): void {
    const read = () => {
      this.route = location.hash.replace(/^#\/?/, "");
      window.scrollTo(0, 0);
    };
    window.addEventListener("hashchange", read);
    read();
  }

  async #tick(): Promise<void> {
    this.now = Date.now() / 1000;
    this.#reload.look(this.busy);
    if (this.hidden) return;
    this.#ticks += 1;
    if (this.mine && this.wallet.open) void this.purchases.work();
    if (this.wallet.open) void this.links.work();
    void this.handover.work();
    const away = this.shop.reachable !== "yes";
    const turn = this.#ticks % (away || this.shop.clock.wasSet ? 3 : POLL_TICKS) === 0;
    if (this.shop.due) await this.shop.refresh();
    const reached = this.shop.reachable === "yes";
    if (this.wallet.open && reached && (turn || away)) await this.sessions.refresh();
  }

  async #woken(): Promise<void> {
    this.hidden = document.visibilityState === "hidden";
    if (this.hidden) return;
    this.now = Date.now() / 1000;
    void this.#registration?.update().catch(() => undefined); // looks for a newer build; away from the gateway there is none
    await this.shop.refresh();
    if (this.wallet.open) await this.sessions.wake();
  }

  #paidByLink(sessionId: string): void {
    void this.sessions.read(sessionId).catch((error: unknown) => this.shop.noted(error));
  }

  #bought(purchase: Purchase): void {
    if (purchase.sessionId && (purchase.state === "settled" || purchase.state === "pending")) {
      const sessionId = purchase.sessionId;
      void this.sessions.read(sessionId).catch((error: unknown) => this.shop.noted(error));
    }
    // It is not among those that the gateway waits for any more.
    if (purchase.paymentId && purchase.state === "settled") this.sessions.unsettled = this.sessions.unsettled.filter((each) => each !== purchase.paymentId);
  }
}

export const app = new App();
