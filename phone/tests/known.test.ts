import { expect, test } from "vitest";

import { count, drop, learn, MOST_KNOWN, only, sample, since } from "../src/core/known";

const hidden = { cid: "a", secret: true };
const read = { cid: "a", secret: false };

test("what was stored here is known until it is deleted here", () => {
  const known = learn(learn(since(undefined, null), [hidden, read]), [hidden, { cid: "b", secret: true }]);
  expect(known).toEqual({ emptiedAt: null, secret: ["a", "b"], open: ["a"] });
  expect([count(known), count(drop(known, [hidden]))]).toEqual([3, 2]);
  expect(drop(known, [hidden]).open).toEqual(["a"]);
});

test("a memory that began again holds nothing of what was known", () => {
  const known = learn(since(undefined, null), [hidden]);
  expect(count(since(known, 1_700_000_000))).toBe(0);
  expect(count(since(known, null))).toBe(1);
});

test("of what is known stays what is listed as the same kind of note", () => {
  const known = learn(since(undefined, null), [hidden, read, { cid: "b", secret: true }]);
  expect(only(known, [hidden, { cid: "b", secret: false }])).toEqual({ emptiedAt: null, secret: ["a"], open: [] });
});

test("no more is kept than there is room for", () => {
  const many = Array.from({ length: MOST_KNOWN + 1 }, (_, at) => ({ cid: String(at), secret: true }));
  expect(learn(since(undefined, null), many).secret[0]).toBe("1");
});

test("a sample draws each note at most once, and any of them", () => {
  const known = learn(since(undefined, null), [hidden, read, { cid: "b", secret: true }]);
  expect(sample(known, 2, () => 0.999).map(({ cid, secret }) => cid + secret)).toEqual(["afalse", "atrue"]);
  expect(new Set(sample(known, 9, () => 0.5).map(({ cid, secret }) => cid + secret)).size).toBe(3);
  expect(sample(since(undefined, null), 5, () => 0)).toEqual([]);
});
