// Identities as they are kept: what is public of them, and their sealed secret.

import { hex, unhex } from "./bytes";
import type { Signer } from "./keys";
import { tidy } from "./seeds";
import type { SpendingKey } from "./spending";
import type { Sealed, Secret } from "./vault";

export interface KeptIdentity {
  address: string;
  name: string;
  /** Of the spending key, once it was derived. */
  payer: string | null;
  /** Whether the words were checked by typing some of them; an imported file counts as checked. */
  checked: boolean;
  /** Whether its words open both keys ("words"), or a file brought it and its words open the spending key alone. */
  from?: Secret["kind"];
  createdAt: number;
  sealed: Sealed;
}

/** An identity that is open: what signs. */
export class OpenIdentity {
  #secret: Secret;
  #spending: Promise<SpendingKey> | null = null;

  private constructor(
    readonly signer: Signer,
    secret: Secret,
  ) {
    this.#secret = secret;
  }

  static async of(secret: Secret): Promise<OpenIdentity> {
    const { Signer, signerOf } = await import("./keys");
    const signer =
      secret.kind === "words" ? await signerOf(unhex(secret.entropyHex), secret.path) : new Signer(unhex(secret.secretHex));
    return new OpenIdentity(signer, secret);
  }

  get address(): string {
    return this.signer.address;
  }

  /** The words to write down: of the identity, or of the spending key where the identity came from a file. */
  get words(): string {
    return this.#secret.kind === "words" ? this.#secret.words : this.#secret.spendingWords;
  }

  get path(): string {
    return this.#secret.kind === "words" ? this.#secret.path : "";
  }

  get cameFromFile(): boolean {
    return this.#secret.kind === "pair";
  }

  /** The key that pays; its code is loaded with the first payment. */
  spending(): Promise<SpendingKey> {
    this.#spending ??= import("./spending").then(({ SpendingKey }) => SpendingKey.of(this.words));
    return this.#spending;
  }

  /** What is to be sealed. */
  secret(): Secret {
    return this.#secret;
  }

  close(): void {
    this.signer.wipe();
    void this.#spending?.then((key) => key.wipe());
    this.#secret = { kind: "words", words: "", entropyHex: "", path: "" };
  }
}

/** What is to be sealed of words. Loads the list of words. */
export async function secretOfWords(words: string, path = ""): Promise<Secret> {
  const { entropyOf } = await import("./words");
  const plain = tidy(words);
  return { kind: "words", words: plain, entropyHex: hex(entropyOf(plain)), path };
}

/** What is to be sealed of a keystore's key: it has no words, so the spending key gets some of its own. */
export function secretOfPair(signer: Signer, spendingWords: string): Secret {
  return { kind: "pair", secretHex: hex(signer.exported()), spendingWords };
}
