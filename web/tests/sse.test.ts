import { describe, expect, it } from "vitest";
import { EventParser } from "../src/sse";

const STREAM =
  ": hello\r\n\r\nid: e1\nevent: turn\ndata: {\"a\":1}\n\nevent: delta\r\nid: e2\r\ndata: 你好\r\ndata: 世界\r\n\r\ndata:x\n\nid: only\n\n";
const EXPECTED = [
  { event: "turn", data: '{"a":1}', id: "e1" },
  { event: "delta", data: "你好\n世界", id: "e2" },
  { event: "message", data: "x", id: "" },
];

describe("EventParser", () => {
  it("reads the same events however the text is cut", () => {
    for (let size = 1; size <= STREAM.length; size++) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < STREAM.length; at += size)
        found.push(...parser.feed(STREAM.slice(at, at + size)));
      expect(found, `pieces of ${size}`).toEqual(EXPECTED);
    }
  });

  it("keeps an event back until it is complete", () => {
    const parser = new EventParser();
    expect(parser.feed("data: a\n")).toEqual([]);
    expect(parser.feed("\n")).toEqual([{ event: "message", data: "a", id: "" }]);
  });
});
