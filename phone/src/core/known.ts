// The notes that this device knows a node to hold. A node is asked to prove these, not those that it chose to list: one
// that lost a note would list it no more.

/** Of one session's node; ids of encrypted notes and of those that the node reads. */
export interface Known {
  /** Which loss of the node's memory they came after. */
  emptiedAt: number | null;
  secret: string[];
  open: string[];
}

export interface KnownNote {
  cid: string;
  secret: boolean;
}

/** More are not kept for a session; the first of them go. */
export const MOST_KNOWN = 20_000;

/** What is known of a node, whose memory may have begun again since. */
export function since(known: Known | undefined, emptiedAt: number | null): Known {
  return known && known.emptiedAt === emptiedAt ? known : { emptiedAt, secret: [], open: [] };
}

export function learn(known: Known, notes: readonly KnownNote[]): Known {
  return changed(known, (kind, ids) => [...new Set([...ids, ...of(notes, kind)])].slice(-MOST_KNOWN));
}

export function drop(known: Known, notes: readonly KnownNote[]): Known {
  return changed(known, (kind, ids) => {
    const gone = new Set(of(notes, kind));
    return ids.filter((cid) => !gone.has(cid));
  });
}

/** Those that are also among some others. */
export function only(known: Known, others: readonly KnownNote[]): Known {
  return changed(known, (kind, ids) => {
    const there = new Set(of(others, kind));
    return ids.filter((cid) => there.has(cid));
  });
}

export function count(known: Known): number {
  return known.secret.length + known.open.length;
}

/** Some of them, drawn at random: `random` gives numbers from 0 to 1. */
export function sample(known: Known, size: number, random: () => number): KnownNote[] {
  const all = [...known.secret.map((cid) => ({ cid, secret: true })), ...known.open.map((cid) => ({ cid, secret: false }))];
  for (let at = 0; at < Math.min(size, all.length); at += 1) {
    const other = at + Math.floor(random() * (all.length - at));
    [all[at], all[other]] = [all[other] as KnownNote, all[at] as KnownNote];
  }
  return all.slice(0, size);
}

function changed(known: Known, change: (kind: "secret" | "open", ids: string[]) => string[]): Known {
  return { ...known, secret: change("secret", known.secret), open: change("open", known.open) };
}

function of(notes: readonly KnownNote[], kind: "secret" | "open"): string[] {
  return notes.filter((note) => note.secret === (kind === "secret")).map(({ cid }) => cid);
}
