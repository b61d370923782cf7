// Numbers and times as a person reads them, in the language of the app.

const MICROS = 1_000_000n;

/** Dollars with two decimals, or as many as there are, up to six. */
export function money(units: bigint, language: string): string {
  const negative = units < 0n;
  const plain = negative ? -units : units;
  const whole = new Intl.NumberFormat(language).format(plain / MICROS);
  const point = new Intl.NumberFormat(language).formatToParts(1.1).find((part) => part.type === "decimal")?.value ?? ".";
  const decimals = (plain % MICROS).toString().padStart(6, "0").replace(/0{1,4}$/, "");
  return `${negative ? "−" : ""}${whole}${point}${decimals}`;
}

/** Hours and minutes; minutes and seconds below an hour; days above two. */
export function duration(seconds: number): { value: string; spoken: { d: number; h: number; m: number; s: number } } {
  const all = Math.max(0, Math.floor(seconds));
  const d = Math.floor(all / 86_400);
  const h = Math.floor((all % 86_400) / 3_600);
  const m = Math.floor((all % 3_600) / 60);
  const s = all % 60;
  const two = (value: number): string => String(value).padStart(2, "0");
  if (all >= 2 * 86_400) return { value: `${d}d ${h}h`, spoken: { d, h, m: 0, s: 0 } };
  if (all >= 3_600) return { value: `${d * 24 + h}:${two(m)}:${two(s)}`, spoken: { d: 0, h: d * 24 + h, m, s: 0 } };
  return { value: `${m}:${two(s)}`, spoken: { d: 0, h: 0, m, s } };
}

/** A length of time in one unit: "40 sec", "6 min". */
export function span(seconds: number, language: string): string {
  const [value, unit] = seconds < 90 ? [Math.max(1, Math.round(seconds)), "second"] : [Math.round(seconds / 60), "minute"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short" }).format(value);
}

export function moment(unixS: number, language: string): string {
  const date = new Date(unixS * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const options: Intl.DateTimeFormatOptions = today
    ? { hour: "2-digit", minute: "2-digit" }
    : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  return new Intl.DateTimeFormat(language, options).format(date);
}

export function number(value: number, language: string, decimals = 0): string {
  return new Intl.NumberFormat(language, { maximumFractionDigits: decimals }).format(value);
}

export function percent(value: number, language: string): string {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(value);
}

/** The middle of a long id, left out. */
export function short(id: string, kept = 6): string {
  return id.length <= 2 * kept + 1 ? id : `${id.slice(0, kept)}…${id.slice(-kept)}`;
}
