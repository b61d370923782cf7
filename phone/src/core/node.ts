// Requests to the node's memory, through the gateway: signed for the node in their bodies, and for the gateway in
// their headers. Notes are in two private namespaces of the identity: encrypted here, or read by the node (notes.ts).

import { hex, sha256, utf8 } from "./bytes";
import { Failure } from "./failures";
import { bounded, MOST_BYTES, refusal, type Gateway } from "./gateway";
import type { Signer } from "./keys";
import type { Known, KnownNote } from "./known";
import { FIELD, fits, NotesCipher, notesKey, NotesVectors, packed, PRIVATE_NAMESPACE } from "./notes";
import { holds, rootIsSigned, type Root, type ShownProof } from "./proof";
import type { ExportedRecord } from "./restore";

export const NAMESPACE = "phone";
export const LONGEST_NOTE = 4_000;
/** An id that no note has: a proof that it is absent shows the root all the same. */
const NO_NOTE = "v1::" + "0".repeat(64);
const PAGE = 50;
const CANDIDATES = 50;
const FOUND = 20;
/** Of nodes that do not say. */
const DIMENSION = 384;
const LONGEST_END = 16_384;
/** More than a phone keeps in its memory: `engram miner guard` exports what is larger. */
const MOST_EXPORT_BYTES = 256_000_000;

export interface Note {
  cid: string;
  text: string;
  storedAt: number | null;
  /** Encrypted on the phone. */
  secret: boolean;
  score?: number;
}

/** What a node does not vouch for of what is known of it. */
export interface Audit {
  /** Of the sampled notes. */
  missing: KnownNote[];
  /** How many notes less than are known its signed roots count. */
  fewer: number;
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
  #cipher: Promise<NotesCipher> | null = null;
  #dimension: Promise<number> | null = null;
  readonly #vectors: NotesVectors;

  constructor(
    private readonly gateway: Gateway,
    private readonly signer: Signer,
    private readonly sessionId: string,
    private readonly nodeHotkey: string | null,
  ) {
    this.#vectors = new NotesVectors(signer);
  }

  /** Store a note, encrypted here or readable for the node, and return its id. Throws Failure. */
  async store(text: string, storedAt: number, secret: boolean): Promise<string> {
    const at = Math.floor(storedAt);
    const fields: Fields = secret ? await this.sealed(text, at) : { text, metadata: { text, stored_at: at } };
    const stored = await this.post("IngestSynapse", fields, secret);
    const { cid, error } = stored as { cid?: unknown; error?: unknown };
    if (typeof cid !== "string" || !cid) throw new Failure("refused", "not_stored", String(error ?? "").slice(0, 300));
    return cid;
  }

  /** Find notes: encrypted ones by their words, those that the node reads by meaning. The question itself is sent to the
   * node only where there is one that it reads. Throws Failure. */
  async search(question: string, readable: boolean): Promise<Note[]> {
    const query = packed(this.#vectors.of(question, await this.dimension()));
    const [hidden, open] = await Promise.all([
      this.post("QuerySynapse", { query_vector_b64: query, top_k: CANDIDATES }, true),
      readable ? this.post("QuerySynapse", { query_text: question, top_k: FOUND }, false) : null,
    ]);
    const found = await this.notes((hidden as { results?: unknown }).results, true);
    const fitting = found.filter((note) => fits(note.text, question, note.score ?? 0));
    const others = await this.notes((open as { results?: unknown } | null)?.results, false);
    return [...fitting, ...others].sort((a, b) => (b.score ?? 0) - (a.score ?? 0)).slice(0, FOUND);
  }

  /** A page of notes of one kind, oldest first, and how many there are. Throws Failure. */
  async list(offset: number, secret: boolean): Promise<{ notes: Note[]; count: number }> {
    const page = (await this.post("list", { limit: PAGE, offset }, secret)) as { records?: unknown; count?: unknown };
    const found = await this.notes(page.records, secret);
    return { notes: found, count: typeof page.count === "number" ? page.count : found.length };
  }

  /** Delete a note; false when there was none. Throws Failure. */
  async remove(note: Note): Promise<boolean> {
    const [result] = ((await this.post("DeleteBatch", { cids: [note.cid] }, note.secret)) as { results?: { deleted?: unknown }[] }).results ?? [];
    return result?.deleted === true;
  }

  /** Compare a node with what is known of it: it has to prove some of the notes by roots that it signed, and the roots
   * have to count all of them. Throws Failure. */
  async audit(known: Known, some: readonly KnownNote[], nowS: number): Promise<Audit> {
    const audit: Audit = { missing: [], fewer: 0 };
    for (const secret of [true, false]) {
      const all = (secret ? known.secret : known.open).length;
      if (all === 0) continue;
      const asked = some.filter((note) => note.secret === secret).map(({ cid }) => cid);
      let counted = all;
      for (const cid of asked.length > 0 ? asked : [NO_NOTE]) {
        const proved = (await this.post("prove-memory", { cid }, secret)) as Root & { proof?: string };
        const vouched = this.nodeHotkey !== null && rootIsSigned(proved, named(secret), this.nodeHotkey, this.sessionId, nowS);
        counted = Math.min(counted, vouched && Number.isSafeInteger(proved.count) ? Math.max(0, proved.count) : 0);
        if (cid !== NO_NOTE && !(vouched && (await holds(shownIn(proved.proof), cid, proved.root_hex)))) audit.missing.push({ cid, secret });
      }
      audit.fewer += all - counted;
    }
    return audit;
  }

  /** Whether the root of the encrypted notes is signed by this session's node, lately. Throws Failure. */
  async vouched(nowS: number): Promise<boolean> {
    const shown = (await this.post("prove-memory", { cid: NO_NOTE }, true)) as Root;
    return this.nodeHotkey !== null && rootIsSigned(shown, PRIVATE_NAMESPACE, this.nodeHotkey, this.sessionId, nowS);
  }

  /** Everything that the node holds, as it exports it (a line of JSON each). Throws Failure. */
  async export(signal: AbortSignal): Promise<Blob> {
    const body = canonical(await this.signedFor("export-stream", { kind: "record", after: 0 }));
    const response = await this.gateway.stream(this.signer, "POST", this.path("export-stream"), body, signal);
    if (response.status !== 200) throw refusal(response.status, null);
    const content = new Blob([await bounded(response, MOST_EXPORT_BYTES)], { type: "application/x-ndjson" });
    // The last line says that nothing is missing; an answer without it was cut off.
    const end = await content.slice(-LONGEST_END).text();
    if (!end.trimEnd().split("\n").at(-1)?.includes('"kind":"end"')) throw new Failure("malformed", "cut_off", "the export broke off");
    return content;
  }

  /** Whether records of the namespace are this app's notes. */
  owns(namespace: string): boolean {
    return namespace === NAMESPACE || namespace === PRIVATE_NAMESPACE;
  }

  /** Store exported records, all of one namespace, under the ids that they had; return how many have them. Throws Failure. */
  async putBack(records: readonly ExportedRecord[]): Promise<number> {
    const items = records.map(({ text, metadata, embedding }) => ({ ...(text === null ? {} : { text }), metadata, raw_embedding_b64: embedding }));
    const secret = records[0]?.namespace === PRIVATE_NAMESPACE;
    const { results } = (await this.post("IngestBatch", { items }, secret)) as { results?: { cid?: unknown }[] };
    if (!Array.isArray(results)) return 0;
    return records.filter(({ cid }, at) => results[at]?.cid === cid).length;
  }

  /** A note as it is sent: nothing of its text but a ciphertext and a vector of this identity's own making. */
  private async sealed(content: string, storedAt: number): Promise<Fields> {
    const [cipher, dimension] = await Promise.all([this.cipher(), this.dimension()]);
    const sealed = await cipher.seal({ text: content, metadata: { stored_at: storedAt } });
    return { raw_embedding_b64: packed(this.#vectors.of(content, dimension)), metadata: { [FIELD]: sealed } };
  }

  private async notes(records: unknown, secret: boolean): Promise<Note[]> {
    if (!Array.isArray(records)) return [];
    const each = await Promise.all(records.map((record) => this.note((record ?? {}) as Record<string, unknown>, secret)));
    return each.filter((note) => note !== null);
  }

  private async note(record: Record<string, unknown>, secret: boolean): Promise<Note | null> {
    if (typeof record.cid !== "string") return null;
    const shown = (record.metadata ?? {}) as Record<string, unknown>;
    const opened = secret ? await (await this.cipher()).open(String(shown[FIELD] ?? "")) : null;
    const content = secret ? (opened?.text ?? "") : (shown.text ?? record.text);
    const storedAt = secondsOf((secret ? opened?.metadata : shown)?.stored_at);
    const score = typeof record.score === "number" ? { score: record.score } : {};
    return { cid: record.cid, text: typeof content === "string" ? content : "", storedAt, secret, ...score };
  }

  private cipher(): Promise<NotesCipher> {
    return (this.#cipher ??= NotesCipher.of(notesKey(this.signer)));
  }

  /** How many numbers the node's vectors have. */
  private dimension(): Promise<number> {
    return (this.#dimension ??= this.gateway
      .get<{ dimension?: unknown }>(this.signer, "GET", this.path("health"))
      .then(({ dimension }) => (Number.isInteger(dimension) && (dimension as number) > 0 && (dimension as number) <= 8_192 ? (dimension as number) : DIMENSION)));
  }

  private path(endpoint: string): string {
    return `/sessions/${this.sessionId}/node/${endpoint}`;
  }

  private async post(endpoint: string, fields: Fields, secret: boolean): Promise<unknown> {
    const signed = await this.signedFor(endpoint, await this.signedIn(named(secret), endpoint, fields));
    const body = JSON.stringify(signed);
    if (body.length > MOST_BYTES) throw new Failure("refused", "too_large", "that is too long");
    return this.gateway.get(this.signer, "POST", this.path(endpoint), body);
  }

  /** Fields with the signature for the namespace, version 2: good for this request alone. */
  private async signedIn(namespace: string, endpoint: string, fields: Fields): Promise<Fields> {
    const whole: Fields = { ...fields, namespace };
    const at = this.stamp();
    const digest = hex(await sha256(utf8(canonical(whole))));
    const signature = this.signer.sign(utf8(`engram-ns-2:${endpoint}:${namespace}:${at}:${digest}`));
    return {
      ...whole,
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

/** A proof as the node wrote it; what cannot be read shows nothing. */
function shownIn(proof: unknown): ShownProof {
  try {
    return JSON.parse(String(proof)) as ShownProof;
  } catch {
    return { key: "", depth: 0, siblings: [] };
  }
}

function named(secret: boolean): string {
  return secret ? PRIVATE_NAMESPACE : NAMESPACE;
}

/** Unix seconds as a note carries them: nodes turn all metadata into texts. */
function secondsOf(value: unknown): number | null {
  const seconds = typeof value === "string" && value !== "" ? Number(value) : value;
  return typeof seconds === "number" && Number.isFinite(seconds) ? seconds : null;
}
