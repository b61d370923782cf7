// An identity that this device left for another one, until it is known what became of it.

import { Failure } from "../core/failures";
import type { OpenIdentity } from "../core/identity";
import type { Store } from "../core/store";
import type { Shop } from "./shop.svelte";

export type HandoverState = "none" | "waiting" | "taken" | "replaced" | "over";

interface Left {
  id: string;
  taken: boolean;
  expires_at: number;
}

/** What a reload finds again. The id opens nothing: that takes the code, which is kept nowhere. */
interface Watched {
  id: string;
  of: string;
  expiresAt: number;
  taken: boolean;
}

const LOOK_S = 3;

export class Handover {
  state = $state<HandoverState>("none");
  /** Unix seconds by the gateway. */
  expiresAt = $state(0);
  /** Whether the code's own sheet is open, which says it all. */
  shown = $state(false);
  /** Whose it is (SS58). */
  of = $state("");
  #id = "";
  #nextAt = 0;
  #looking = false;

  constructor(
    private readonly store: Store,
    private readonly shop: Shop,
    private readonly identity: () => OpenIdentity | null,
  ) {}

  /** Go on watching the code that was made before the page was loaded again. */
  async begin(): Promise<void> {
    const kept = await this.store.get<Watched>("seen", "handover");
    if (!kept || this.#id) return;
    [this.#id, this.of, this.expiresAt] = [kept.id, kept.of, kept.expiresAt];
    this.state = kept.taken ? "taken" : "waiting";
  }

  /** Leave an identity under a new code, which takes the place of the one before, and return the code. Throws Failure. */
  async make(open: OpenIdentity, name: string, checked: boolean): Promise<string> {
    const { makeCode, Passage } = await import("../core/transfer"); // with scrypt, which the first screen does without
    const code = makeCode();
    const passage = await Passage.of(code);
    const sealed = await passage.seal({ secret: open.secret(), name, checked });
    const body = JSON.stringify({ id: passage.id, sealed });
    const { expires_at } = await this.shop.gateway.get<Pick<Left, "expires_at">>(open.signer, "POST", "/transfers", body);
    [this.#id, this.of, this.#nextAt] = [passage.id, open.signer.address, this.shop.clock.nowS() + LOOK_S];
    this.expiresAt = expires_at;
    this.state = "waiting";
    await this.#keep();
    return code;
  }

  /** Ask what became of it, where it is due. Never throws. */
  async work(): Promise<void> {
    const [open, id] = [this.identity(), this.#id];
    if (this.state !== "waiting" || open?.signer.address !== this.of || this.#looking || this.shop.clock.nowS() < this.#nextAt) return;
    this.#looking = true;
    try {
      const left = await this.shop.gateway.get<Left>(open.signer, "GET", "/transfers");
      if (id === this.#id) this.state = left.id !== id ? "replaced" : left.taken ? "taken" : this.shop.clock.nowS() < this.expiresAt ? "waiting" : "over";
    } catch (error) {
      this.shop.noted(error);
      // The gateway forgets those alone whose time is over.
      if (id === this.#id && error instanceof Failure && error.code === "no_transfer") this.state = "over";
    } finally {
      this.#nextAt = this.shop.clock.nowS() + LOOK_S;
      this.#looking = false;
    }
    if (id === this.#id && (this.state as HandoverState) !== "waiting") await this.#keep();
  }

  /** The person was told. */
  async saw(): Promise<void> {
    if (this.state === "waiting") return;
    this.state = "none";
    await this.#keep();
  }

  async #keep(): Promise<void> {
    const watched: Watched = { id: this.#id, of: this.of, expiresAt: this.expiresAt, taken: this.state === "taken" };
    if (this.state === "waiting" || watched.taken) await this.store.put("seen", "handover", watched);
    else await this.store.remove("seen", "handover");
  }
}
