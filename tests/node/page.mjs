// Opens a page in Chromium and runs a script in it. Reads { executable, url, script, argument } from standard input,
// where script is the text of a function; prints { value } or { error }, and { console } with what the page said.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const { executable, url, script, argument } = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({ executablePath: executable, args: ["--disable-gpu"] });
const said = [];
try {
  const page = await browser.newPage();
  page.on("console", (message) => said.push(message.text()));
  await page.goto(url);
  const outcome = await page
    .evaluate(([text, given]) => (0, eval)(`(${text})`)(given), [script, argument])
    .then((value) => ({ value }), (error) => ({ error: String(error) }));
  console.log(JSON.stringify({ ...outcome, console: said }));
} finally {
  await browser.close();
}
