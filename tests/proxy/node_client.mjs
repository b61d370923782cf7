// Posts a file with headers of a JSON file, by fetch or by node:http; prints the status and the body's length.
import { readFileSync } from "node:fs";
import { request } from "node:http";

const [how, url, bodyFile, headersFile] = process.argv.slice(2);
const body = readFileSync(bodyFile);
const headers = JSON.parse(readFileSync(headersFile));
if (how === "fetch") {
  const answer = await fetch(url, { method: "POST", body, headers });
  console.log(answer.status, (await answer.text()).length);
} else {
  const sending = request(url, { method: "POST", headers: { ...headers, "content-length": body.length } }, (answer) => {
    let length = 0;
    answer.on("data", (part) => (length += part.length));
    answer.on("end", () => {
      console.log(answer.statusCode, length);
      process.exit(0);
    });
  });
  sending.on("error", (error) => console.log("error", error.code));
  sending.end(body);
}
