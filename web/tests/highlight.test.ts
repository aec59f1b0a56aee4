import { describe, expect, it } from "vitest";
import { coloured } from "../src/highlight";

describe("coloured", () => {
  it("colours and keeps the text", () => {
    const code = "def f():\n    return '<b>&amp;'\n";
    const fragment = coloured(code, "py");
    expect(fragment?.textContent).toBe(code);
    expect(fragment?.querySelector(".hljs-keyword")?.textContent).toBe("def");
    expect(fragment?.querySelector("b")).toBeNull();
  });

  it("leaves alone what it does not know or what is too long", () => {
    expect(coloured("x", "unheard")).toBeNull();
    expect(coloured("x".repeat(60_000), "py")).toBeNull();
  });
});
