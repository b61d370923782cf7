// Runs steps (steps.mjs) in Chromium, as they are named on standard input: a line of JSON { step, argument } each,
// answered by a line { value } or { error }. Ends with its input.
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

import * as steps from "./steps.mjs";

const { executable } = JSON.parse(process.argv[2]);
const browser = await chromium.launch({ executablePath: executable, args: ["--disable-gpu", "--force-color-profile=srgb", "--font-render-hinting=none", "--host-resolver-rules=MAP shop.example 127.0.0.1"] });
const state = { browser, pages: {}, page: null, said: [], requests: [], bodies: [] };
try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, argument } = JSON.parse(line);
    let outcome;
    try {
      const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the step did not end in 60 s")), 60_000).unref());
      outcome = { value: (await Promise.race([steps[step](state, argument ?? undefined), late])) ?? null };
    } catch (error) {
      const shown = state.page ? await state.page.locator("body").innerText({ timeout: 1000 }).catch(() => "") : "";
      outcome = { error: `${error}\n${state.said.slice(-8).join("\n")}\n--- the page shows\n${shown.slice(0, 1500)}` };
    }
    process.stdout.write(JSON.stringify(outcome) + "\n");
  }
} finally {
  await browser.close();
}
