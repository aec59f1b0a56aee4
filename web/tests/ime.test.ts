import { describe, expect, it } from "vitest";
import { compositionEnded, isForInputMethod } from "../src/ime";

const enter = { key: "Enter", isComposing: false, keyCode: 13 };

describe("Enter and the input method", () => {
  it("belongs to the input method while it composes", () => {
    expect(isForInputMethod({ ...enter, isComposing: true }, 1_000)).toBe(true);
    expect(isForInputMethod({ ...enter, keyCode: 229 }, 1_000)).toBe(true);
  });

  it("belongs to it just after the end, and to us later", () => {
    compositionEnded(1_000);
    expect(isForInputMethod(enter, 1_020)).toBe(true);
    expect(isForInputMethod(enter, 1_060)).toBe(false);
  });
});
