// Posts a body of so many bytes by fetch, once for each object of headers in a JSON file; prints [status, text] of each.
import { readFileSync } from "node:fs";

const [url, size, headersFile] = process.argv.slice(2);
const body = Buffer.alloc(Number(size));
const seen = [];
for (const headers of JSON.parse(readFileSync(headersFile))) {
  try {
    const answer = await fetch(url, { method: "POST", body, headers });
    seen.push([answer.status, await answer.text()]);
  } catch (error) {
    seen.push([0, String(error.cause ?? error)]);
  }
}
console.log(JSON.stringify(seen));
