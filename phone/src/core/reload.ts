// When a page that a newer build waits for may begin again: never during a payment, a dialog, or while something is typed.

export class Reload {
  /** Whether the newer worker has taken over, so that the page should follow. */
  due = false;

  constructor(
    private readonly reload: () => void,
    private readonly isUsed: () => boolean,
  ) {}

  /** Begin again if that is due and nothing is lost by it; `busy`: a payment is open. */
  look(busy: boolean): void {
    if (!this.due || busy || this.isUsed()) return;
    this.due = false;
    this.reload();
  }
}

/** Whether a dialog is open, or a field has what somebody typed. */
export function isUsed(page: Pick<Document, "querySelector" | "querySelectorAll">): boolean {
  if (page.querySelector("dialog[open]")) return true;
  return [...page.querySelectorAll<HTMLInputElement | HTMLTextAreaElement>("input, textarea")].some(
    (field) => field.type !== "radio" && field.type !== "checkbox" && field.value !== "",
  );
}
