// An export put back into a node that began again empty. Records keep their ids; storing one twice is harmless, so that
// what was interrupted is simply begun again. engram/sdk/restoring.py does the same for all that a node may hold.

import type { Memory } from "./node";

export interface ExportedRecord {
  cid: string;
  namespace: string;
  metadata: { [name: string]: string };
  embedding: string;
  text: string | null;
}

export interface Restored {
  stored: number;
  failed: number;
  /** Documents of other programs with the same key, which this app does not put back. */
  others: number;
  /** Whether the file is whole: its last line says so. */
  whole: boolean;
}

/** Records that go into one request: each has at most 16 kB, and a request 1 MB. */
const BATCH = 32;
const LONGEST_LINE = 1_000_000;

/** Put back what `file` has of this identity's notes. Throws Failure when the node cannot be reached. */
export async function restore(memory: Memory, file: Blob, onStored: (stored: number) => void = () => undefined): Promise<Restored> {
  const result: Restored = { stored: 0, failed: 0, others: 0, whole: false };
  const waiting = new Map<string, ExportedRecord[]>();
  const flush = async (namespace: string): Promise<void> => {
    const records = waiting.get(namespace) ?? [];
    waiting.delete(namespace);
    if (records.length === 0) return;
    const stored = await memory.putBack(records);
    result.stored += stored;
    result.failed += records.length - stored;
    onStored(result.stored);
  };
  for await (const line of lines(file)) {
    const found = documentOf(line);
    if (found === "end") result.whole = true;
    else if (found === "broken") result.failed += 1;
    else if (found === "other" || !memory.owns(found.namespace)) result.others += 1;
    else {
      const records = waiting.get(found.namespace) ?? [];
      waiting.set(found.namespace, [...records, found]);
      if (records.length + 1 === BATCH) await flush(found.namespace);
    }
  }
  for (const namespace of [...waiting.keys()]) await flush(namespace);
  return result;
}

function documentOf(line: string): ExportedRecord | "end" | "other" | "broken" {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return "broken";
  }
  if (typeof fields !== "object" || fields === null) return "broken";
  if (fields.kind === "end") return "end";
  if (fields.kind !== "record") return "other";
  const { cid, namespace, metadata, embedding_b64: embedding, text } = fields;
  if (typeof cid !== "string" || typeof namespace !== "string" || typeof embedding !== "string") return "broken";
  if (typeof metadata !== "object" || metadata === null || Object.values(metadata).some((value) => typeof value !== "string")) return "broken";
  // A fact or a record that ends is more than a note: the app has none, and would put it back as less than it was.
  if (fields.key != null || fields.supersedes != null || fields.expires_at != null) return "other";
  return { cid, namespace, metadata: metadata as { [name: string]: string }, embedding, text: typeof text === "string" ? text : null };
}

async function* lines(file: Blob): AsyncGenerator<string> {
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const pieces = (rest + part.value).split("\n");
    rest = pieces.pop() ?? "";
    for (const piece of pieces) if (piece.trim()) yield piece;
    if (rest.length > LONGEST_LINE) break; // no export has such a line
  }
  if (rest.trim()) yield rest;
}
