// The app's texts, in the language that was chosen.

import { en, type Strings } from "../strings/en";

export const LANGUAGES = { en: "English", de: "Deutsch" } as const;
export type Language = keyof typeof LANGUAGES;

class Texts {
  language = $state<Language>("en");
  t = $state.raw<Strings>(en);

  async choose(language: Language): Promise<void> {
    this.t = language === "de" ? (await import("../strings/de")).de : en;
    this.language = language;
    document.documentElement.lang = language;
  }

  /** The language of the device, where there is one of it. */
  get preferred(): Language {
    const first = navigator.languages.map((each) => each.slice(0, 2)).find((each) => each in LANGUAGES);
    return (first as Language | undefined) ?? "en";
  }
}

export const texts = new Texts();
