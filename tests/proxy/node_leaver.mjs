// Posts by fetch and leaves where it is told to: a JSON line of standard input is [ending, headers]; four at a time.
// Prints, as JSON, how many requests ended in which way.
import { createInterface } from "node:readline";

const url = process.argv[2];
const counts = {};
const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);

async function post(ending, headers) {
  const leaving = new AbortController();
  let pulled = 0;
  const pull = (controller) => (pulled++ ? leaving.abort() : controller.enqueue(Buffer.alloc(100_000, "x")));
  const part = new ReadableStream({ pull }, { highWaterMark: 0 });
  const body = ending === "gone in the upload" ? part : "{}";
  if (ending === "gone before the head") setTimeout(() => leaving.abort(), 15);
  try {
    const answer = await fetch(url, { method: "POST", headers, body, duplex: "half", signal: leaving.signal });
    for await (const _ of answer.body) if (ending === "gone in the answer") leaving.abort();
    count(String(answer.status));
  } catch (error) {
    count(error.name === "AbortError" ? "left" : "cut");
  }
}

async function lane(lines) {
  for (;;) {
    const { value, done } = await lines.next();
    if (done) return;
    await post(...JSON.parse(value));
  }
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await Promise.all([1, 2, 3, 4].map(() => lane(lines)));
console.log(JSON.stringify(counts));
process.exit(0);
