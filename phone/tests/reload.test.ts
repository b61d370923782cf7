import { expect, test } from "vitest";

import { isUsed, Reload } from "../src/core/reload";

function page(dialog: boolean, ...fields: { type: string; value: string }[]): Document {
  return { querySelector: () => (dialog ? {} : null), querySelectorAll: () => fields } as unknown as Document;
}

test("a page is used while a dialog is open or a field has something typed", () => {
  expect(isUsed(page(false, { type: "text", value: "" }, { type: "radio", value: "lite" }, { type: "checkbox", value: "on" }))).toBe(false);
  expect(isUsed(page(false, { type: "textarea", value: "a note" }))).toBe(true);
  expect(isUsed(page(true))).toBe(true);
});

test("an update that another window took waits for a payment and for what is typed, and is then followed once", () => {
  let [reloads, used] = [0, true];
  const reload = new Reload(
    () => (reloads += 1),
    () => used,
  );
  reload.look(false);
  expect(reloads).toBe(0); // nothing is due
  reload.due = true;
  reload.look(true);
  reload.look(false);
  used = false;
  reload.look(true);
  expect(reloads).toBe(0);
  reload.look(false);
  reload.look(false);
  expect(reloads).toBe(1);
});
