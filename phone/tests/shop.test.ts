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

/** Answers that the test gives when it likes: `answer` gives the oldest unanswered request of a path. */
function held(): { answer(path: string, body: unknown): void; asked(path: string): number } {
  const open: [string, (response: Response) => void][] = [];
  const asked: string[] = [];
  fetching.mockImplementation((url) => {
    const path = String(url).slice("https://gateway.example".length);
    asked.push(path);
    return new Promise((resolve) => open.push([path, resolve]));
  });
  return {
    answer(path, body) {
      const [[, resolve]] = open.splice(open.findIndex(([each]) => each === path), 1) as [(typeof open)[0]];
      resolve(Response.json(body));
    },
    asked: (path) => asked.filter((each) => each === path).length,
  };
}

const PRICE = (price: number) => ({ tiers: [{ tier: "lite", price_usd_per_hour: price }] });

test("of two readings that overlap the one begun last is shown, and both end with it", async () => {
  const { answer, asked } = held();
  const shop = new Shop(new MemoryStore(), "https://gateway.example");
  await shop.begin();
  const begin = (): void => {
    answer("/identity", { hotkey: "5Key", environment: "local" });
    answer("/app/config.json", { name: "Shop", accent: "", network: "" });
  };
  const first = shop.refresh();
  begin();
  await vi.waitFor(() => expect(asked("/tiers")).toBe(1));
  const second = shop.refresh();
  begin();
  await vi.waitFor(() => expect(asked("/tiers")).toBe(2));
  const shelves = (price: number): void => {
    answer("/tiers", PRICE(price));
    answer("/nodes", { available: true });
    answer("/terms", {});
  };
  shelves(0.1); // to the requests of the first reading, which are the older ones
  let ended = false;
  void first.then(() => (ended = true));
  await new Promise((resolve) => setTimeout(resolve));
  expect([ended, shop.tiers.length]).toEqual([false, 0]);
  shelves(0.2);
  await Promise.all([first, second]);
  expect(shop.tiers[0]!.price_usd_per_hour).toBe(0.2);
});

test("an overtaken reading that ends last changes nothing", async () => {
  const answers: ((response: Response) => void)[] = [];
  let price = 0.2;
  let slow = true;
  fetching.mockImplementation((url) => {
    const path = String(url).slice("https://gateway.example".length);
    if (path === "/tiers" && slow) return new Promise((resolve) => answers.push(resolve));
    return Promise.resolve(Response.json(path === "/identity" ? { hotkey: "5Key", environment: "local" } : path === "/tiers" ? PRICE(price) : {}));
  });
  const shop = new Shop(new MemoryStore(), "https://gateway.example");
  await shop.begin();
  const first = shop.refresh();
  await vi.waitFor(() => expect(answers.length).toBe(1));
  slow = false;
  await shop.refresh();
  expect(shop.tiers[0]!.price_usd_per_hour).toBe(0.2);
  answers[0]!(Response.json(PRICE(0.1)));
  await first;
  await new Promise((resolve) => setTimeout(resolve));
  expect(shop.tiers[0]!.price_usd_per_hour).toBe(0.2);
});

test("prices whose reading failed are due again, whatever other requests say of the gateway", async () => {
  let nowMs = 0;
  answers(() => "5Key");
  const shop = new Shop(new MemoryStore(), "https://gateway.example", () => nowMs);
  await shop.begin();
  expect(shop.due).toBe(true);
  await shop.refresh();
  expect([shop.reachable, shop.due]).toEqual(["yes", false]);
  fetching.mockImplementation(async () => Promise.reject(new TypeError("network changed")));
  const reading = shop.refresh();
  nowMs += 60_000;
  expect(shop.due).toBe(false); // one is under way
  await reading;
  shop.noted(null);
  expect([shop.reachable, shop.due]).toEqual(["yes", false]);
  nowMs += 3_000;
  expect(shop.due).toBe(true);
});

test("prices are read again after a while, sooner where the gateway is away, later where it said when", async () => {
  let nowMs = 0;
  answers(() => "5Key");
  const shop = new Shop(new MemoryStore(), "https://gateway.example", () => nowMs);
  await shop.begin();
  await shop.refresh();
  nowMs += 299_000;
  expect(shop.due).toBe(false);
  shop.reachable = "no";
  expect(shop.due).toBe(true);
  shop.reachable = "yes";
  nowMs += 1_000;
  expect(shop.due).toBe(true);
  fetching.mockImplementation(async () => Response.json({ code: "busy" }, { status: 429, headers: { "Retry-After": "90" } }));
  await shop.refresh();
  nowMs += 89_000;
  expect(shop.due).toBe(false);
  nowMs += 1_000;
  expect(shop.due).toBe(true);
});
