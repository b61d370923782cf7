// The identities on this device, and the one that is open.

import { OpenIdentity, type KeptIdentity } from "../core/identity";
import type { Purchase } from "../core/purchase";
import type { Store } from "../core/store";
import { sealByDevice, sealByPasskey, sealByPassphrase, unseal, type Sealed, type Secret } from "../core/vault";

/** The identity is here already, with words of its own for the spending key, which would be lost. */
export class OtherWords extends Error {}

export class Wallet {
  all = $state.raw<KeptIdentity[]>([]);
  open = $state.raw<OpenIdentity | null>(null);
  current = $state<string | null>(null);
  persistent = $state<boolean | null>(null);
  #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  get kept(): KeptIdentity | null {
    return this.all.find((each) => each.address === this.current) ?? null;
  }

  /** Read what is here, and open it where no one has to be asked. */
  async begin(): Promise<void> {
    this.all = await this.#store.all<KeptIdentity>("identities");
    const chosen = await this.#store.get<string>("settings", "current");
    this.current = this.all.find((each) => each.address === chosen)?.address ?? this.all[0]?.address ?? null;
    if (this.kept?.sealed.by === "device") await this.unlock();
    this.persistent = (await navigator.storage?.persisted?.()) ?? false;
  }

  /** Open the current identity. Throws WrongKey. */
  async unlock(passphrase = ""): Promise<void> {
    const kept = this.kept;
    if (!kept) return;
    this.open = await OpenIdentity.of(await unseal(kept.sealed, kept.address, passphrase));
  }

  lock(): void {
    this.open?.close();
    this.open = null;
  }

  /** Keep an identity, by this device's key at first, and open it. One that is here already is never written over: it
   * keeps its words and its protection. Throws OtherWords. */
  async add(secret: Secret, name: string, checked: boolean): Promise<void> {
    const opened = await OpenIdentity.of(secret);
    const kept = await this.#store.get<KeptIdentity>("identities", opened.address);
    if (kept) {
      await this.#again(kept, opened, checked);
      return;
    }
    const sealed = await sealByDevice(secret, opened.address);
    await this.#keep({ address: opened.address, name, payer: null, checked, from: secret.kind, createdAt: Date.now() / 1000, sealed });
    if (this.open) this.lock();
    this.open = opened;
    await this.choose(opened.address);
    this.persistent = (await navigator.storage?.persist?.()) ?? false;
  }

  async choose(address: string): Promise<void> {
    if (this.open && this.open.address !== address) this.lock();
    this.current = address;
    await this.#store.put("settings", "current", address);
    if (!this.open && this.kept?.sealed.by === "device") await this.unlock();
  }

  /** Note that the words were checked. */
  async check(): Promise<void> {
    if (this.kept) await this.#keep({ ...this.kept, checked: true });
  }

  async notePayer(payer: string): Promise<void> {
    if (this.kept && this.kept.payer !== payer) await this.#keep({ ...this.kept, payer });
  }

  /** Seal the open identity in another way. Throws RangeError for a short passphrase. */
  async protect(by: Sealed["by"], passphrase = ""): Promise<void> {
    const { kept, open } = this;
    if (!kept || !open) return;
    const secret = open.secret();
    const sealed =
      by === "device"
        ? await sealByDevice(secret, kept.address)
        : by === "passphrase"
          ? await sealByPassphrase(secret, kept.address, passphrase)
          : await sealByPasskey(secret, kept.address, kept.name || "Engram");
    await this.#keep({ ...kept, sealed });
  }

  /** Forget the current identity on this device, with what was seen and bought with it; purchases that still stand in
   * the way of another stay, so that bringing the identity back at once signs no second one. */
  async forget(stands: (purchase: Purchase) => boolean): Promise<void> {
    const address = this.current;
    if (!address) return;
    this.lock();
    const bought = (await this.#store.all<Purchase>("purchases")).filter((each) => each.buyer === address && !stands(each));
    for (const { id } of bought) await this.#store.remove("purchases", id);
    for (const what of ["sessions", "payments", "ended", "notes"]) await this.#store.remove("seen", `${what} ${address}`);
    const link = await this.#store.get<{ buyer: string }>("settings", "link");
    if (link?.buyer === address) await this.#store.remove("settings", "link");
    await this.#store.remove("settings", "current");
    await this.#store.remove("identities", address);
    this.all = this.all.filter((each) => each.address !== this.current);
    this.current = this.all[0]?.address ?? null;
    if (this.kept?.sealed.by === "device") await this.unlock();
  }

  /** Open an identity that is here already, by what was typed or by its own protection. */
  async #again(kept: KeptIdentity, opened: OpenIdentity, checked: boolean): Promise<void> {
    this.all = [...this.all.filter((each) => each.address !== kept.address), kept];
    const from = kept.from ?? (kept.sealed.by === "device" ? (await unseal(kept.sealed, kept.address)).kind : "pair");
    if (opened.cameFromFile) {
      opened.close(); // it has no words of its own: those that are kept stay
      await this.choose(kept.address);
      return;
    }
    if (from === "pair") {
      opened.close();
      throw new OtherWords("it was brought by a file");
    }
    if (this.open) this.lock();
    this.open = opened;
    await this.choose(kept.address);
    if (checked && !kept.checked) await this.#keep({ ...kept, checked: true });
  }

  async #keep(kept: KeptIdentity): Promise<void> {
    await this.#store.put("identities", kept.address, kept);
    this.all = [...this.all.filter((each) => each.address !== kept.address), kept];
  }
}
