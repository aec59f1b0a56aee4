import { describe, expect, it } from "vitest";
import { ApiError, ConnectionLost } from "../src/api";
import { problemOf } from "../src/problems";

const of = (status: number, code: string | null = null, retryAfter: number | null = null) =>
  problemOf(new ApiError(status, code, "said", retryAfter, "0123456789ab"), false);

describe("problems", () => {
  it("have words of their own for what can be mended", () => {
    const words = [400, 401, 403, 404, 409, 413, 429, 500, 503].map((status) => of(status).what);
    expect(new Set(words).size).toBe(words.length);
  });

  it("count down by what the server said", () => {
    expect(of(429, null, 18).again).toBe(18);
    expect(of(503, "overloaded", 6).again).toBe(6);
    expect(of(500).again).toBeNull();
  });

  it("tell a loading model from a lost one", () => {
    const error = new ApiError(503, "no_engine_available", "");
    expect(problemOf(error, true).what).toBe("errLoading");
    expect(problemOf(error, false).what).toBe("errNoEngine");
    expect(problemOf(error, true).again).toBeGreaterThan(0);
  });

  it("carry the beginning of the request id", () => {
    expect(of(500).reference).toBe("01234567");
    expect(problemOf(new ConnectionLost(), false).what).toBe("errLost");
  });
});
