import { expect, test } from "vitest";

import { Failure } from "../src/core/failures";
import { Handover } from "../src/ui/handover.svelte";
import { MemoryStore, openWallet, standIn, type Reply } from "./stand-ins";

const wallet = await openWallet();
const other = await openWallet();
const NOW_MS = 1_700_000_000_000;
const ENDS = NOW_MS / 1000 + 600;

/** A code that was made, and a gateway that says `left` of it. */
async function made() {
  const world = { nowMs: NOW_MS, left: (id: string): Reply => ({ status: 200, body: { id, taken: false, expires_at: ENDS } }), asked: 0, open: wallet.open };
  let id = "";
  const { shop } = await standIn((init, path) => {
    expect(path).toBe("/transfers");
    if (init.method === "POST") {
      id = (JSON.parse(String(init.body)) as { id: string }).id;
      return { status: 201, body: { expires_at: ENDS } };
    }
    world.asked += 1;
    return world.left(id);
  }, () => world.nowMs);
  const store = new MemoryStore();
  const loaded = () => new Handover(store, shop, () => world.open);
  const handover = loaded();
  const code = await handover.make(wallet.open!, "me", true);
  const later = async (seconds: number): Promise<string> => {
    world.nowMs += seconds * 1000;
    await handover.work();
    return handover.state;
  };
  return { world, handover, code, later, loaded, store };
}

test("the device that made a code is told when another has taken the identity, and asks no more then", async () => {
  const { world, handover, code, later } = await made();
  expect(code).toMatch(/^(\w{4}-){3}\w{4}$/);
  expect([handover.state, handover.of]).toEqual(["waiting", wallet.open!.signer.address]);
  expect(await later(1)).toBe("waiting");
  expect(world.asked).toBe(0);
  expect(await later(2)).toBe("waiting");
  await handover.saw();
  expect(handover.state).toBe("waiting");
  world.left = (id) => ({ status: 200, body: { id, taken: true, expires_at: ENDS } });
  expect(await later(3)).toBe("taken");
  expect(await later(3)).toBe("taken");
  expect(world.asked).toBe(2);
  await handover.saw();
  expect(handover.state).toBe("none");
});

test.each([
  ["a newer code took its place", 3, () => ({ status: 200, body: { id: "other", taken: true, expires_at: ENDS } }), "replaced"],
  ["nobody took it in time", 600, (id: string) => ({ status: 200, body: { id, taken: false, expires_at: ENDS } }), "over"],
  ["the gateway has forgotten it", 900, () => ({ status: 404, body: { code: "no_transfer" } }), "over"],
  ["it was taken in the last moment", 600, (id: string) => ({ status: 200, body: { id, taken: true, expires_at: ENDS } }), "taken"],
] as const)("that %s is told as that", async (_, seconds, left, state) => {
  const { world, later } = await made();
  world.left = left;
  expect(await later(seconds)).toBe(state);
});

test("what is not known is asked for again, and never of another identity", async () => {
  const { world, later } = await made();
  world.left = () => {
    throw new Failure("unreachable", "unreachable", "no answer");
  };
  expect(await later(601)).toBe("waiting");
  expect(world.asked).toBe(1);
  world.open = other.open;
  expect(await later(3)).toBe("waiting");
  expect(world.asked).toBe(1);
  world.open = wallet.open;
  world.left = (id) => ({ status: 200, body: { id, taken: true, expires_at: ENDS } });
  expect(await later(3)).toBe("taken");
});

test("a page that is loaded again goes on watching, until the person has seen what became of it", async () => {
  const { world, code, loaded, store } = await made();
  expect(JSON.stringify([...store.kept])).not.toContain(code);
  const again = loaded();
  await again.begin();
  expect([again.state, again.of, again.expiresAt]).toEqual(["waiting", wallet.open!.signer.address, ENDS]);
  world.left = (id) => ({ status: 200, body: { id, taken: true, expires_at: ENDS } });
  world.nowMs += 3_000;
  await again.work();
  expect(again.state).toBe("taken");
  const unseen = loaded();
  await unseen.begin();
  expect(unseen.state).toBe("taken");
  await unseen.saw();
  const seen = loaded();
  await seen.begin();
  expect(seen.state).toBe("none");
});

test("a code that was replaced or not taken is not watched by a page that is loaded again", async () => {
  const { world, later, loaded } = await made();
  world.left = () => ({ status: 404, body: { code: "no_transfer" } });
  expect(await later(900)).toBe("over");
  const again = loaded();
  await again.begin();
  expect(again.state).toBe("none");
});
