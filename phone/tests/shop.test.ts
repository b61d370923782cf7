import { afterEach, expect, test, vi } from "vitest";

import { Shop } from "../src/ui/shop.svelte";
import { MemoryStore } from "./stand-ins";

vi.stubGlobal("document", { documentElement: { style: { setProperty: () => undefined } } });
const fetching = vi.spyOn(globalThis, "fetch");
afterEach(() => fetching.mockReset());

/** A gateway that says this of itself, whose key is asked for each time. */
function answers(hotkey: () => string): void {
  fetching.mockImplementation(async (url) =>
    Response.json(String(url).endsWith("/identity") ? { hotkey: hotkey(), environment: "local" } : String(url).endsWith("/tiers") ? { tiers: [] } : {}),
  );
}

test.each([
  [502, "<h1>Bad Gateway</h1>", "no"],
  [503, "", "no"],
  [500, '{"error":"?"}', "no"],
  [503, '{"error":"busy","code":"busy"}', "yes"],
  [429, "slow down", "yes"],
])("a %i that says %j: reachable is %s", async (status, body, reachable) => {
  fetching.mockImplementation(async () => new Response(body, { status }));
  const shop = new Shop(new MemoryStore(), "https://gateway.example");
  await shop.begin();
  await shop.refresh();
  expect(shop.reachable).toBe(reachable);
});

test("the key that the person was shown is remembered, and no other that answers meanwhile", async () => {
  const [first, shown, later] = ["5First", "5Shown", "5Later"];
  let key = first!;
  answers(() => key);
  const shop = new Shop(new MemoryStore(), "https://gateway.example");
  await shop.begin();
  await shop.refresh();
  key = shown!;
  await shop.refresh();
  expect(shop.changedTo).toBe(shown);
  key = later!;
  await shop.trustChanged();
  expect(shop.gateway.hotkey).toBe(shown);
  await shop.refresh();
  expect(shop.changedTo).toBe(later);
});

test("a key that was not shown yet is shown before it is remembered", async () => {
  let key = "5First";
  answers(() => key);
  const shop = new Shop(new MemoryStore(), "https://gateway.example");
  await shop.begin();
  await shop.refresh();
  key = "5Other";
  shop.changedTo = "?";
  await shop.trustChanged();
  expect([shop.gateway.hotkey, shop.changedTo]).toEqual(["5First", "5Other"]);
  await shop.trustChanged();
  expect([shop.gateway.hotkey, shop.changedTo]).toEqual(["5Other", null]);
});
