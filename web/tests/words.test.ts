import { describe, expect, it } from "vitest";
import { en } from "../src/words.en";
import { zh } from "../src/words.zh";

const slots = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

describe("the words", () => {
  it("exist in both languages, with the same slots", () => {
    expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort());
    for (const [name, text] of Object.entries(en)) {
      expect(text, name).not.toBe("");
      expect(slots(zh[name as keyof typeof en]), name).toEqual(slots(text));
    }
  });
});
