// Requests to the node's memory, through the gateway: signed for the node in their bodies, and for the gateway in
// their headers. Notes are in a private namespace of the identity.

import { hex, sha256, utf8 } from "./bytes";
import { Failure } from "./failures";
import { MOST_BYTES, refusal, type Gateway } from "./gateway";
import type { Signer } from "./keys";
import { holds, rootIsSigned, type Root, type ShownProof } from "./proof";

export const NAMESPACE = "phone";
export const LONGEST_NOTE = 4_000;
const PAGE = 50;
const LONGEST_END = 16_384;

export interface Note {
  cid: string;
  text: string;
  storedAt: number | null;
  score?: number;
}

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
type Fields = { [key: string]: Json };

/** JSON as the node signs over it: sorted keys, no spaces, ASCII. Numbers must be whole. Throws RangeError. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const keys = Object.keys(value).sort(byCodePoint);
    return `{${keys.map((key) => `${escaped(key)}:${canonical(value[key] as Json)}`).join(",")}}`;
  }
  if (typeof value === "string") return escaped(value);
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError(`${value} is not a whole number`);
  return String(value);
}

function escaped(given: string): string {
  return JSON.stringify(given).replace(/[\u007f-\uffff]/g, (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0"));
}

function byCodePoint(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const difference = (left[at] as string).codePointAt(0)! - (right[at] as string).codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

export class Memory {
  #lastMs = 0;

  constructor(
    private readonly gateway: Gateway,
    private readonly signer: Signer,
    private readonly sessionId: string,
    private readonly nodeHotkey: string | null,
  ) {}

  /** Store a note and return its id. Throws Failure. */
  async store(text: string, storedAt: number): Promise<string> {
    const metadata = { text, stored_at: Math.floor(storedAt) };
    const stored = await this.post("IngestSynapse", { text, metadata });
    const { cid, error } = stored as { cid?: unknown; error?: unknown };
    if (typeof cid !== "string" || !cid) throw new Failure("refused", "not_stored", String(error ?? "").slice(0, 300));
    return cid;
  }

  /** Find notes by meaning, the nearest first. Throws Failure. */
  async search(question: string): Promise<Note[]> {
    const found = await this.post("QuerySynapse", { query_text: question, top_k: 20 });
    return notes((found as { results?: unknown }).results);
  }

  /** A page of notes, oldest first, and how many there are. Throws Failure. */
  async list(offset = 0): Promise<{ notes: Note[]; count: number }> {
    const page = (await this.post("list", { limit: PAGE, offset })) as { records?: unknown; count?: unknown };
    const found = notes(page.records);
    return { notes: found, count: typeof page.count === "number" ? page.count : found.length };
  }

  /** Delete a note; false when there was none. Throws Failure. */
  async remove(cid: string): Promise<boolean> {
    const [result] = ((await this.post("DeleteBatch", { cids: [cid] })) as { results?: { deleted?: unknown }[] }).results ?? [];
    return result?.deleted === true;
  }

  /** Check of up to `sample` notes that the node holds them, by proofs against a root that it signed. Throws Failure. */
  async prove(cids: string[], nowS: number, sample = 5): Promise<{ checked: number; held: number; count: number }> {
    const some = [...cids].sort(() => Math.random() - 0.5).slice(0, sample);
    let held = 0;
    let count = 0;
    for (const cid of some) {
      const proved = (await this.post("prove-memory", { cid })) as Root & { proof?: string };
      count = Number(proved.count) || 0;
      const shown = JSON.parse(String(proved.proof)) as ShownProof;
      const vouched = this.nodeHotkey !== null && rootIsSigned(proved, NAMESPACE, this.nodeHotkey, this.sessionId, nowS);
      if (vouched && (await holds(shown, cid, proved.root_hex))) held += 1;
    }
    return { checked: some.length, held, count };
  }

  /** Everything that the node holds, as it exports it (a line of JSON each). Throws Failure. */
  async export(signal: AbortSignal): Promise<Blob> {
    const body = canonical(await this.signedFor("export-stream", { kind: "record", after: 0 }));
    const response = await this.gateway.stream(this.signer, "POST", this.path("export-stream"), body, signal);
    if (response.status !== 200) throw refusal(response.status, null);
    const content = await response.blob();
    // The last line says that nothing is missing; an answer without it was cut off.
    const end = await content.slice(-LONGEST_END).text();
    if (!end.trimEnd().split("\n").at(-1)?.includes('"kind":"end"')) throw new Failure("malformed", "cut_off", "the export broke off");
    return content;
  }

  private path(endpoint: string): string {
    return `/sessions/${this.sessionId}/node/${endpoint}`;
  }

  private async post(endpoint: string, fields: Fields): Promise<unknown> {
    const signed = await this.signedFor(endpoint, await this.named(endpoint, fields));
    const body = JSON.stringify(signed);
    if (body.length > MOST_BYTES) throw new Failure("refused", "too_large", "that is too long");
    return this.gateway.get(this.signer, "POST", this.path(endpoint), body);
  }

  /** Fields with the signature for the namespace, version 2: good for this request alone. */
  private async named(endpoint: string, fields: Fields): Promise<Fields> {
    const named: Fields = { ...fields, namespace: NAMESPACE };
    const at = this.stamp();
    const digest = hex(await sha256(utf8(canonical(named))));
    const signature = this.signer.sign(utf8(`engram-ns-2:${endpoint}:${NAMESPACE}:${at}:${digest}`));
    return {
      ...named,
      namespace_hotkey: this.signer.address,
      namespace_sig: "0x" + hex(signature),
      namespace_timestamp_ms: at,
      namespace_sig_version: 2,
    };
  }

  /** Fields with the signature of the whole body. */
  private async signedFor(endpoint: string, fields: Fields): Promise<Fields> {
    const nonce = this.stamp();
    const digest = hex(await sha256(utf8(canonical(fields))));
    const signature = this.signer.sign(utf8(`${nonce}:${endpoint}:${digest}`));
    return { ...fields, hotkey: this.signer.address, nonce, signature: "0x" + hex(signature) };
  }

  /** Strictly increasing: a node takes one request of a kind per millisecond. */
  private stamp(): number {
    this.#lastMs = Math.max(this.gateway.clock.nowMs(), this.#lastMs + 1);
    return this.#lastMs;
  }
}

function notes(records: unknown): Note[] {
  if (!Array.isArray(records)) return [];
  return records.flatMap((each: { cid?: unknown; text?: unknown; metadata?: Record<string, unknown>; score?: unknown }) => {
    const content = each.metadata?.text ?? each.text;
    if (typeof each.cid !== "string") return [];
    const storedAt = typeof each.metadata?.stored_at === "number" ? each.metadata.stored_at : null;
    const score = typeof each.score === "number" ? { score: each.score } : {};
    return [{ cid: each.cid, text: typeof content === "string" ? content : "", storedAt, ...score }];
  });
}
