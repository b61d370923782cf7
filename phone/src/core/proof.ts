// Checks a node's proof that it holds a note: the keyed Merkle tree of engram/memory/proof/keyed_tree.py, and the
// signature of its root by the node's hotkey or by a session key that the hotkey certified.

import { concat, equal, sha256, text, unbase64, unhex, utf8, type Bytes } from "./bytes";
import { signed } from "./keys";
import { decode } from "./ss58";

export interface ShownProof {
  key: string;
  depth: number;
  siblings: string[];
  embedding_hash?: string | null;
  index?: number | null;
  size?: number | null;
  path?: string[];
  entries?: string[] | null;
}

export interface Root {
  root_hex: string;
  count: number;
  signed: string;
  signature: string;
  certificate?: string;
}

const LEVELS = 16;
const FRESH_S = 600;
const LEEWAY_S = 60;

/** Whether the proof shows that the tree of this root holds the note. Never throws: what cannot be read is no proof. */
export async function holds(shown: ShownProof, cid: string, rootHex: string): Promise<boolean> {
  try {
    return equal(await rootOf(shown, cid), unhex(rootHex));
  } catch {
    return false;
  }
}

async function rootOf(shown: ShownProof, cid: string): Promise<Bytes> {
  const key = await sha256(utf8(cid));
  if (!equal(unhex(shown.key), key) || shown.entries) throw new RangeError("it shows something else");
  const { depth, siblings } = shown;
  if (!Number.isInteger(depth) || depth < LEVELS || depth > 256 || siblings.length !== depth) throw new RangeError("depth");
  const held = unhex(shown.embedding_hash ?? "");
  if (held.length !== 32) throw new RangeError("no entry");
  let current = await inBucket(await hash(0, concat(key, held)), shown.index ?? -1, shown.size ?? 0, shown.path ?? []);
  for (let at = depth; at > 0; at -= 1) {
    const other = unhex(siblings[depth - at] as string);
    const bit = ((key[(at - 1) >> 3] as number) >> (7 - ((at - 1) & 7))) & 1;
    current = await hash(at <= LEVELS ? 1 : 2, bit ? concat(other, current) : concat(current, other));
  }
  return current;
}

/** The root of an RFC 6962 tree, by the path from a leaf (RFC 9162, 2.1.3.2). */
async function inBucket(leaf: Bytes, index: number, size: number, path: string[]): Promise<Bytes> {
  if (!Number.isInteger(index) || index < 0 || index >= size || path.length > 64) throw new RangeError("index");
  let [at, last, current] = [index, size - 1, leaf];
  for (const each of path) {
    if (last === 0) throw new RangeError("the path is too long");
    const other = unhex(each);
    if (at & 1 || at === last) {
      current = await hash(1, concat(other, current));
      while (!(at & 1) && at !== 0) [at, last] = [at >> 1, last >> 1];
    } else {
      current = await hash(1, concat(current, other));
    }
    [at, last] = [at >> 1, last >> 1];
  }
  if (last !== 0) throw new RangeError("the path is too short");
  return current;
}

function hash(prefix: number, content: Uint8Array): Promise<Bytes> {
  return sha256(concat(Uint8Array.of(prefix), content));
}

/** Whether the node signed this root over that namespace, lately. `nodeHotkey` is SS58. */
export function rootIsSigned(root: Root, namespace: string, nodeHotkey: string, sessionId: string, nowS: number): boolean {
  const expected = `engram-commitment:keyed-1:${namespace}:${root.root_hex}:${root.count}:`;
  const stamp = root.signed.slice(expected.length);
  if (!root.signed.startsWith(expected) || !/^[0-9]{1,16}$/.test(stamp)) return false;
  if (Math.abs(Number(stamp) / 1000 - nowS) > FRESH_S) return false;
  try {
    const key = root.certificate ? certified(root.certificate, nodeHotkey, sessionId, nowS) : nodeHotkey;
    return signed(decode(key), utf8(root.signed), unhex(root.signature));
  } catch {
    return false;
  }
}

/** The session key that a certificate lends the hotkey's name to. Throws RangeError. */
function certified(certificate: string, hotkey: string, sessionId: string, nowS: number): string {
  const [prefix, body, signature] = certificate.split(".");
  if (prefix !== "engram-cert-1" || !body || !signature || certificate.length > 2048) throw new RangeError("no certificate");
  const claims = JSON.parse(text(unbase64(plain(body)))) as Record<string, unknown>;
  if (!signed(decode(hotkey), utf8(`${prefix}.${body}`), unbase64(plain(signature)))) throw new RangeError("not signed");
  const from = Number(claims.not_before) - LEEWAY_S;
  const until = Number(claims.not_after) + LEEWAY_S;
  const fits = claims.hotkey === hotkey && claims.session_id === sessionId && nowS >= from && nowS <= until;
  if (!fits) throw new RangeError("of another node, session or time");
  return String(claims.session_key);
}

function plain(url: string): string {
  return url.replaceAll("-", "+").replaceAll("_", "/") + "=".repeat((4 - (url.length % 4)) % 4);
}
