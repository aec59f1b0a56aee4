import { describe, expect, it } from "vitest";
import { Markdown } from "../src/markdown";

const markdown = new Markdown({ image: "not loaded" });

function html(text: string): string {
  const place = document.createElement("div");
  for (const block of markdown.blocks(text)) place.append(markdown.render(block));
  return place.innerHTML;
}

describe("Markdown", () => {
  it.each([
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a <b onclick=alert(1)>b</b>",
    "[x](javascript:alert(1))",
    "[x](data:text/html,y)",
    "![x](https://evil.example/y)",
    "<a href='javascript:alert(1)'>x</a>",
    "<style>*{}</style>",
    "[x](//evil.example)",
    "<p style='color:red'>x</p>",
  ])("makes %s inert", (text) => {
    const place = document.createElement("div");
    place.innerHTML = html(text);
    expect(place.querySelector("img,script,style,b,iframe")).toBeNull();
    for (const node of place.querySelectorAll("*"))
      for (const { name, value } of node.attributes) {
        expect(name).not.toMatch(/^on|^style$/);
        if (name === "href") expect(value).toMatch(/^https?:\/\//);
      }
  });

  it("shows raw HTML as text", () => {
    expect(html("<b>x</b>")).toContain("&lt;b&gt;x&lt;/b&gt;");
  });

  it("opens links elsewhere and tells them nothing", () => {
    const link = html("[x](https://example.com/a)");
    expect(link).toContain('rel="noopener noreferrer nofollow"');
    expect(link).toContain('target="_blank"');
  });

  it("keeps columns to the right", () => {
    expect(html("| a |\n|--:|\n| 1 |")).toContain('align="right"');
  });

  it("keeps the number that a list begins with", () => {
    expect(html("3. a\n4. b")).toContain(`start="3"`);
  });

  it("names the language of a code block", () => {
    const [block] = markdown.blocks("```py title\nx\n```");
    expect(block && markdown.languageOf(block)).toBe("py");
  });

  it("knows when a fence is closed", () => {
    const closed = (text: string) => markdown.blocks(text).map((one) => markdown.isClosedFence(one));
    expect(closed("```py\nx = 1")).toEqual([false]);
    expect(closed("```py\nx = 1\n```")).toEqual([true]);
    expect(closed("x")).toEqual([false]);
  });

  it("keeps finished blocks the same while the text grows", () => {
    const before = markdown.blocks("一\n\n二");
    const after = markdown.blocks("一\n\n二三");
    expect(after[0]?.raw).toBe(before[0]?.raw);
  });
});
