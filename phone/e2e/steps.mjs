// What a person does in the app, and what a test looks at. Each step takes the driver's state and its argument.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";

import pixelmatch from "pixelmatch";
import { PNG } from "pngjs";

const WAIT_MS = 20_000;
const required = createRequire(import.meta.url).resolve;
const AXE = readFileSync(required("axe-core/axe.min.js"), "utf8");
const FONT = readFileSync(required("@fontsource-variable/inter/files/inter-latin-wght-normal.woff2")).toString("base64");

/** Wait until a function that may take its time is true in the page; `waitForFunction` takes any promise for true. */
async function until(page, holds) {
  for (const end = Date.now() + WAIT_MS; !(await page.evaluate(holds)); ) {
    if (Date.now() > end) throw new Error(`it never came true: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Open the app in a profile of its own (or one that is open already), at a size and in a theme. `font`: the font is there
 * before anything is shown; where it comes late a page does without it until it is loaded again (font-display). */
export async function open(state, { url, profile = "one", as = profile, font = false, width = 390, height = 844, theme = "light", clockOffMs = null, init = "", route = "", path = "/app/", wallet = null }) {
  let context = state.pages[profile]?.context;
  if (!context) {
    context = await state.browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce", locale: "en-US", timezoneId: "UTC", acceptDownloads: true });
    context.setDefaultTimeout(WAIT_MS);
    if (clockOffMs !== null) {
      await context.addInitScript((off) => {
        const now = Date.now.bind(Date);
        window.clockOffMs = off;
        Date.now = () => now() + window.clockOffMs;
      }, clockOffMs);
    }
    if (init) await context.addInitScript(init);
    if (font) {
      await context.addInitScript((encoded) => {
        const content = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
        document.fonts.add(new FontFace("Inter", content, { weight: "100 900" }));
      }, FONT);
    }
    if (wallet) await bring(state, context, wallet);
  }
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !message.text().includes("402 (Payment Required)") && state.said.push(message.text()));
  page.on("pageerror", (error) => state.said.push(String(error)));
  page.on("request", (request) => {
    state.requests.push(`${request.method()} ${request.url()}`);
    state.bodies.push([request.url(), JSON.stringify(request.headers()), request.postData() ?? ""].join("\n"));
  });
  state.pages[as] = { context, page };
  state.page = page;
  await page.goto(`${url}${path}${route}`);
}

/** Turn to another profile's page. */
export function turn(state, profile) {
  state.page = state.pages[profile].page;
}

/** Make an identity, and return its words. */
export async function create(state, { check = false } = {}) {
  const { page } = state;
  const button = page.getByRole("button", { name: "Create a new identity" });
  // A container engine beside us changes the machine's interfaces, and Chromium then gives up what it was loading.
  await button.waitFor({ timeout: 8_000 }).catch(() => page.reload());
  await button.click();
  await page.locator("ol.card li").last().waitFor();
  const shown = await page.locator("ol.card li").allInnerTexts();
  const words = shown.map((each) => each.trim().split(/\s+/).at(-1));
  if (check) {
    await page.getByRole("button", { name: "I wrote them down" }).click();
    await typeWords(page, words);
  } else {
    await page.getByRole("button", { name: "Later" }).click();
  }
  await page.getByRole("heading", { name: "Your nodes" }).waitFor();
  return words.join(" ");
}

async function typeWords(page, words) {
  for (const label of await page.locator("label.field").all()) {
    const number = Number((await label.innerText()).match(/\d+/)[0]);
    await label.locator("input").fill(words[number - 1]);
  }
  await page.locator("form button").first().click();
}

export async function restore(state, words) {
  const { page } = state;
  await page.getByRole("button", { name: "I have one already" }).click();
  await page.getByLabel("Your 12 or 24 words").fill(words);
  await page.getByRole("button", { name: "Open it" }).click();
  await page.getByRole("heading", { name: "Your nodes" }).waitFor();
}

/** Choose, review and pay, without waiting for what comes of it. Returns the sum on the button. */
export async function pay(state, { tier = "Lite", route = "#/start" } = {}) {
  const { page } = state;
  await page.evaluate((hash) => (location.hash = hash), route);
  if (route === "#/start") await page.locator("label.tier", { hasText: tier }).click();
  await page.getByRole("button", { name: "Review and pay" }).click();
  const button = page.getByRole("button", { name: /^Pay \$/ });
  await button.waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll("dialog button")].some((each) => each.textContent.startsWith("Pay $") && !each.disabled));
  const sum = await button.innerText();
  await button.click();
  return sum;
}

/** Wait until the open node has a status. Returns the session's id. */
export async function status(state, wanted) {
  const { page } = state;
  await page.waitForFunction((each) => document.querySelector("[data-status]")?.dataset.status === each, wanted);
  return page.url().split("/node/")[1];
}

export async function go(state, route) {
  await state.page.evaluate((hash) => (location.hash = hash), "#/" + route);
}

export async function sees(state, text) {
  await state.page.getByText(text, { exact: false }).first().waitFor();
}

/** Wait for an element whose whole text this is, in these letters. */
export async function says(state, text) {
  await state.page.getByText(text, { exact: true }).first().waitFor();
}

export async function click(state, name) {
  await state.page.getByRole("button", { name, exact: true }).first().click();
}

export async function follow(state, name) {
  await state.page.getByRole("link", { name }).first().click();
}

export async function fill(state, { label, text }) {
  await state.page.getByLabel(label).fill(text);
}

export async function turnOff(state, label) {
  await state.page.getByLabel(label).uncheck();
}

export async function reload(state) {
  await state.page.reload();
}

export async function close(state, profile) {
  await state.pages[profile].page.close();
}

export async function text(state) {
  return state.page.locator("body").innerText();
}

export async function evaluate(state, script) {
  return state.page.evaluate(script);
}

export async function notes(state) {
  return state.page.locator("main ul li p").allInnerTexts();
}

export async function removeNote(state, content) {
  const { page } = state;
  await page.locator("li.card", { hasText: content }).getByRole("button", { name: "Delete" }).click();
  await page.locator("dialog").getByRole("button", { name: "Delete" }).click();
  await page.locator("li.card", { hasText: content }).waitFor({ state: "detached" });
}

/** Press what saves a file; return its name and content. */
export async function download(state, name) {
  const [saved] = await Promise.all([state.page.waitForEvent("download"), click(state, name)]);
  return { name: saved.suggestedFilename(), content: readFileSync(await saved.path(), "utf8") };
}

/** Choose a file for the field of this name. */
export async function attach(state, { label, name, content }) {
  await state.page.getByLabel(label).setInputFiles({ name, mimeType: "application/x-ndjson", buffer: Buffer.from(content) });
}

/** Move the device's clock, of pages that have one that can be moved (`clockOffMs`). */
export async function moveClock(state, byMs) {
  await state.page.evaluate((by) => (window.clockOffMs += by), byMs);
}

/** Come back to the page: whether it asks for the sessions and opens a stream again within a second. */
export async function comesBack(state) {
  const { page } = state;
  const asked = (pattern) => page.waitForRequest((request) => pattern.test(request.url()), { timeout: 1_000 });
  const both = Promise.all([asked(/\/sessions\/hotkey\//), asked(/\/sessions\/[^/]+\/events$/)]);
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  const [{ ...read }, { ...streamed }] = (await both).map((request) => request.headers());
  return [read["x-sig"], streamed["x-sig"]].every(Boolean);
}

/** Take the network away from the page, or give it back. */
export async function offline(state, is) {
  await state.page.context().setOffline(is);
}

/** End the event streams, and open none any more. */
export async function breakStreams(state) {
  await state.page.route("**/events", (route) => route.abort());
  await state.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
}

/** What the browser keeps of the app besides its storage: workers and caches. */
export async function installed(state) {
  return state.page.evaluate(async () => [...(await navigator.serviceWorker.getRegistrations()).map((each) => each.active?.scriptURL ?? ""), ...(await caches.keys())]);
}

/** Wait until nothing of the app is installed. */
export async function uninstalled(state) {
  await until(state.page, async () => (await navigator.serviceWorker.getRegistrations()).length + (await caches.keys()).length === 0);
}

export async function worker(state) {
  await state.page.waitForFunction(() => navigator.serviceWorker.controller !== null);
}

/** What axe finds on the page as it is. */
export async function axe(state) {
  const { page } = state;
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? "")).join("; ")}`);
}

/** By how much anything is wider than the window, and how far the layout has shifted. */
export async function layout(state) {
  return state.page.evaluate(
    () =>
      new Promise((resolve) => {
        const overflow = document.documentElement.scrollWidth - innerWidth;
        let shift = 0;
        const moved = [];
        const observer = new PerformanceObserver((list) => {
          for (const each of list.getEntries()) {
            if (each.hadRecentInput) continue;
            shift += each.value;
            for (const { node, previousRect, currentRect } of each.sources) {
              moved.push(`${(node?.outerHTML ?? node?.data ?? "gone").slice(0, 70)} ${previousRect.y} -> ${currentRect.y}`);
            }
          }
        });
        observer.observe({ type: "layout-shift", buffered: true });
        setTimeout(() => resolve({ overflow, shift, moved }), 50);
      }),
  );
}

export async function screenshot(state, path) {
  await state.page.evaluate(() => document.fonts.ready);
  await state.page.screenshot({ path, fullPage: false });
}

export function said(state) {
  return state.said;
}

export function requests(state) {
  return state.requests;
}

/** Whether any request had one of these texts in its address, headers or body. */
export function leaked(state, secrets) {
  return secrets.filter((secret) => state.bodies.some((each) => each.includes(secret)));
}

/** Let a request of this method and path reach the gateway, and lose its answer; `paid`: only one with a payment. */
export async function lose(state, { method, path, paid = false, times = 1 }) {
  let left = times;
  await state.page.route("**" + path, async (route, request) => {
    if (left > 0 && request.method() === method && (!paid || "payment-signature" in request.headers())) {
      left -= 1;
      await route.fetch().catch(() => undefined);
      await route.abort();
    } else {
      await route.fallback();
    }
  });
}

/** Be a gateway that lies: change the answer to a request, and sign the lie with the gateway's own key. */
export async function lie(state, { method, path, seed, change, unsigned = false }) {
  const [{ secretFromSeed, sign }, { createHash }] = await Promise.all([import("@scure/sr25519"), import("node:crypto")]);
  const secret = secretFromSeed(Uint8Array.from(Buffer.from(seed, "hex")));
  const changed = (0, eval)(`(${change})`);
  await state.page.route("**" + path, async (route, request) => {
    if (request.method() !== method) return route.fallback();
    const answer = await route.fetch();
    const content = changed(await answer.json());
    const body = typeof content === "string" ? content : JSON.stringify(content);
    const headers = { ...answer.headers() };
    const timestamp = request.headers()["x-timestamp"];
    if (unsigned) {
      delete headers["x-gateway-sig"];
    } else if (timestamp) {
      const digest = createHash("sha256").update(body).digest("hex");
      const message = `engram-gateway:${answer.status()}:${timestamp}:${digest}`;
      headers["x-gateway-sig"] = Buffer.from(sign(secret, Buffer.from(message))).toString("hex");
    }
    await route.fulfill({ status: answer.status(), headers, body });
  });
}

/** How many requests carried a payment. */
export function payments(state) {
  return new Set(state.bodies.map((each) => /"payment-signature":"([^"]+)"/.exec(each)?.[1]).filter(Boolean)).size;
}

export async function gone(state, text) {
  await state.page.getByText(text, { exact: false }).first().waitFor({ state: "detached" });
}

/** Wait until the first screen leads to a node; return its id. */
export async function opensNode(state) {
  const link = state.page.locator("a.node").first();
  await link.waitFor({ timeout: 40_000 });
  return (await link.getAttribute("href")).split("/node/")[1];
}

/** Wait until no request is open. */
export async function settled(state) {
  await state.page.waitForLoadState("networkidle");
}

export async function disabled(state, name) {
  return state.page.getByRole("button", { name, exact: true }).isDisabled();
}

export function version(state) {
  return state.browser.version();
}

/** Replace what no two runs share (digits, keys, words) by what has the same size. */
async function still(page) {
  await page.evaluate(() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walk.nextNode()) found.push(walk.currentNode);
    for (const node of found) {
      const inside = node.parentElement;
      if (inside.closest(".mono")) node.data = node.data.replace(/[0-9a-zA-Z]/g, "0");
      else if (inside.closest("ol.card li") && !inside.closest("span")) node.data = " word";
      else node.data = node.data.replace(/\b[AP]M\b/g, "AM").replace(/[0-9]/g, "0");
    }
    // What changes each second, or with each reading, would be written again at once.
    for (const each of document.querySelectorAll("[data-ages], .left, figcaption, figure path:not(.grid), [role=status]")) each.style.visibility = "hidden";
  });
}

/** Compare the page with a picture; `write` makes it, `keep` is the folder for a page that differs by more than `most`, and
 * what differs. Return the share of pixels that differ, null for no picture. */
export async function compare(state, { path, keep, most, write = false }) {
  const { page } = state;
  await page.evaluate(() => document.fonts.ready);
  await still(page);
  const shot = await page.screenshot({ animations: "disabled", caret: "hide" });
  if (write) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, shot);
  }
  if (!existsSync(path)) return null;
  const [now, before] = [PNG.sync.read(shot), PNG.sync.read(readFileSync(path))];
  if (now.width !== before.width || now.height !== before.height) return 1;
  const difference = new PNG({ width: now.width, height: now.height });
  const differing = pixelmatch(now.data, before.data, difference.data, now.width, now.height, { threshold: 0.2 });
  const share = differing / (now.width * now.height);
  if (share > most) {
    writeFileSync(join(keep, basename(path)), shot);
    writeFileSync(join(keep, `differs-${basename(path)}`), PNG.sync.write(difference));
  }
  return share;
}

/** Give the page an authenticator that keeps passkeys with secrets (PRF). */
export async function authenticator(state) {
  const client = await state.page.context().newCDPSession(state.page);
  await client.send("WebAuthn.enable");
  const options = { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true, hasUserVerification: true, hasPrf: true, isUserVerified: true, automaticPresenceSimulation: true };
  await client.send("WebAuthn.addVirtualAuthenticator", { options });
}

export async function enabled(state, name) {
  await state.page.waitForFunction((text) => [...document.querySelectorAll("button")].some((each) => each.textContent.trim() === text && !each.disabled), name);
}

export async function choose(state, { label, value }) {
  await state.page.getByLabel(label).selectOption(value);
}

/** Wait until what is shown does not change any more. */
export async function settle(state) {
  await until(state.page, async () => {
    const before = document.querySelector("main").innerText.replace(/\d/g, "");
    await new Promise((resolve) => setTimeout(resolve, 120));
    return document.querySelector("main").innerText.replace(/\d/g, "") === before;
  });
}

export async function expand(state, name) {
  await state.page.locator("summary", { hasText: name }).click();
}

/** What the page keeps where it should keep nothing: local and session storage, cookies. */
export async function kept(state) {
  return state.page.evaluate(() => [...Object.keys(localStorage), ...Object.keys(sessionStorage), ...document.cookie.split(";").filter(Boolean)]);
}

/** A first visit in a profile of its own: compressed kB (font and icons aside), first paint and usable, in ms. */
export async function visit(state, { url, slow }) {
  const context = await state.browser.newContext({ viewport: { width: 390, height: 844 }, serviceWorkers: "block" });
  const page = await context.newPage();
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  if (slow) {
    await client.send("Network.emulateNetworkConditions", { offline: false, latency: 150, downloadThroughput: (1.6 * 1024 * 1024) / 8, uploadThroughput: (750 * 1024) / 8 });
    await client.send("Emulation.setCPUThrottlingRate", { rate: 4 });
  }
  const names = new Map();
  let bytes = 0;
  client.on("Network.responseReceived", ({ requestId, response }) => names.set(requestId, response.url));
  client.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    if (/\/app\/.*(?<!\.woff2|\.png|\.svg)$|\/app\/$/.test(names.get(requestId) ?? "")) bytes += encodedDataLength;
  });
  await page.goto(`${url}/app/`, { waitUntil: "commit" });
  await page.getByRole("button", { name: "Create a new identity" }).waitFor({ timeout: 60_000 });
  const found = await page.evaluate(() => ({
    interactive: performance.now(),
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
  }));
  await page.waitForLoadState("networkidle");
  await context.close();
  return { ...found, kb: bytes / 1000 };
}

/** Compressed kB that each later screen loads when it is opened for the first time. */
export async function screens(state, { url }) {
  const context = await state.browser.newContext({ viewport: { width: 390, height: 844 }, locale: "en-US", serviceWorkers: "block" });
  const page = (state.page = await context.newPage());
  await page.goto(`${url}/app/`);
  await create(state);
  const found = {};
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  await client.send("Network.setCacheDisabled", { cacheDisabled: true });
  let bytes = 0;
  const names = new Map();
  client.on("Network.responseReceived", ({ requestId, response }) => names.set(requestId, response.url));
  client.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    if (/\/app\/.*\.(js|css)$/.test(names.get(requestId) ?? "")) bytes += encodedDataLength;
  });
  for (const route of ["start", "wallet", "activity", "settings", "memory/none", "node/none"]) {
    await page.reload();
    await page.getByRole("navigation").waitFor();
    await page.evaluate(() => (location.hash = "#/"));
    await page.waitForLoadState("networkidle");
    bytes = 0;
    await page.evaluate((hash) => (location.hash = hash), "#/" + route);
    await page.waitForLoadState("networkidle");
    await settle(state);
    found[route.split("/")[0]] = Math.round(bytes / 100) / 10;
  }
  return found;
}

/** Put the sheet away, go to a screen, and wait until it leads to a node; return the node's id. */
export async function opensNodeFrom(state, route) {
  const close = state.page.getByRole("button", { name: "Close", exact: true });
  if (await close.isVisible()) await close.click();
  await go(state, route);
  return opensNode(state);
}

/** A wallet of the browser's: EIP-1193 behind EIP-6963. It declines the first times, and is called from a tap alone. */
async function bring(state, context, { secret, declines = 0, chainId, on = "0x1" }) {
  const { privateKeyToAccount } = await import("../../tests/node/node_modules/viem/_esm/accounts/index.js");
  const account = privateKeyToAccount(secret);
  await context.exposeFunction("signTyped", (text) => {
    const { domain, types, primaryType, message } = JSON.parse(text);
    return account.signTypedData({ domain, types, primaryType, message });
  });
  await context.addInitScript(
    ({ address, declines, chainId, on }) => {
      let left = declines;
      let tapped = false;
      let chain = on;
      window.addEventListener("click", () => { tapped = true; setTimeout(() => (tapped = false)); }, true);
      const refuse = (code) => Promise.reject(Object.assign(new Error("refused"), { code }));
      const provider = {
        async request({ method, params }) {
          if (method === "eth_requestAccounts") return [address];
          if (method === "eth_chainId") return chain;
          if (method === "wallet_switchEthereumChain") return chain === chainId ? null : refuse(4902);
          if (method === "wallet_addEthereumChain") return void (chain = params[0].chainId);
          if (method !== "eth_signTypedData_v4") return refuse(4200);
          if (!tapped) return refuse(-32603);
          if (left > 0) return (left -= 1), refuse(4001);
          return window.signTyped(params[1]);
        },
      };
      const info = { uuid: "350670db-19fa-4704-a166-e52e178b59d2", name: "Fake Wallet", icon: "", rdns: "example.fake" };
      const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail: Object.freeze({ info, provider }) }));
      window.addEventListener("eip6963:requestProvider", announce);
    },
    { address: account.address, declines, chainId, on },
  );
}
