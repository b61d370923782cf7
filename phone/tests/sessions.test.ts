import { expect, test } from "vitest";

import type { Session, SessionStatus } from "../src/core/model";
import { Sessions } from "../src/ui/sessions.svelte";
import { MemoryStore, openWallet, standIn, type Reply } from "./stand-ins";

const wallet = await openWallet();
const other = await openWallet();

function session(id: string, status: SessionStatus, created_at = 0): Session {
  return { session_id: id, status, created_at, payment_id: "", stats: {}, stats_age_s: null, emptied_at: null } as unknown as Session;
}

/** Sessions of the wallet's identity at a gateway whose answers about them the test gives, in the order it likes. */
async function opened() {
  const open: { path: string; answer: (reply: Reply) => void }[] = [];
  const { shop } = await standIn((_, path) => {
    if (path.endsWith("/events")) return { status: 404, body: {} };
    return new Promise((answer) => open.push({ path, answer }));
  });
  const sessions = new Sessions(new MemoryStore(), shop);
  const answer = async (path: string, body: unknown): Promise<void> => {
    await expect.poll(() => open.some((each) => each.path === path)).toBe(true);
    const at = open.findIndex((each) => each.path === path);
    open.splice(at, 1)[0]!.answer({ status: 200, body });
  };
  const list = `/sessions/hotkey/${wallet.open!.address}`;
  const begun = sessions.begin(wallet.open!);
  await answer(list, { sessions: [session("a", "provisioning")] });
  await begun;
  return { sessions, answer, list, requests: () => open.map((each) => each.path) };
}

const shown = (sessions: Sessions): string[] => sessions.all.map((each) => `${each.session.session_id} ${each.session.status}`);

test("a list that was asked for before something newer was read puts back neither its state nor a new session", async () => {
  const { sessions, answer, list, requests } = await opened();
  const listed = sessions.refresh();
  await expect.poll(requests).toEqual([list]);
  const read = [sessions.read("a"), sessions.read("b")];
  await answer("/sessions/a", session("a", "active"));
  await answer("/sessions/b", session("b", "provisioning", 1));
  await Promise.all(read);
  await answer(list, { sessions: [session("a", "provisioning")] });
  await listed;
  expect(shown(sessions)).toEqual(["b provisioning", "a active"]);
});

test("of two answers about a session that overlap the one asked for last is shown", async () => {
  const { sessions, answer, requests } = await opened();
  const first = sessions.read("a");
  await expect.poll(requests).toEqual(["/sessions/a"]);
  const listed = sessions.refresh();
  await answer(`/sessions/hotkey/${wallet.open!.address}`, { sessions: [session("a", "active")] });
  await listed;
  await answer("/sessions/a", session("a", "provisioning"));
  await first;
  expect(shown(sessions)).toEqual(["a active"]);
});

test("a session that the list does not have any more is not shown any more", async () => {
  const { sessions, answer, list } = await opened();
  const listed = sessions.refresh();
  await answer(list, { sessions: [] });
  await listed;
  expect(shown(sessions)).toEqual([]);
});

test("what comes for an identity that was left is not shown as another's", async () => {
  const { sessions, answer, list, requests } = await opened();
  const [listed, read] = [sessions.refresh(), sessions.read("b")];
  await expect.poll(() => requests().sort()).toEqual(["/sessions/b", list].sort());
  sessions.leave();
  const begun = sessions.begin(other.open!);
  await answer(`/sessions/hotkey/${other.open!.address}`, { sessions: [] });
  await begun;
  await answer(list, { sessions: [session("a", "active")] });
  await answer("/sessions/b", session("b", "active"));
  await Promise.all([listed, read]);
  expect(shown(sessions)).toEqual([]);
});
