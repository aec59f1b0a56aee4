import { describe, expect, it } from "vitest";
import { Api, ApiError, ConnectionLost } from "../src/api";
import { type Ask, GIVE_UP_MS, type Surroundings, Turn, TurnFailed, TurnForgotten } from "../src/turn";

type Step = (request: { path: string; init: RequestInit; headers: Headers }) => Response;

class World {
  now = 0;
  isOnline = true;
  offlineFor = 0;
  requests: { path: string; method: string; last: string | null }[] = [];
  said: string[] = [];
  text = "";

  constructor(private readonly steps: Step[]) {}

  fetch = (async (path: string, init: RequestInit = {}) => {
    const headers = new Headers(init.headers);
    this.requests.push({ path, method: init.method ?? "GET", last: headers.get("last-event-id") });
    const step = this.steps.shift();
    if (!step) throw new TypeError("Failed to fetch");
    return step({ path, init, headers });
  }) as typeof fetch;

  around: Surroundings = {
    api: new Api({ fetch: this.fetch, key: () => "k" }),
    online: () => this.isOnline,
    pause: async (ms) => {
      this.now += ms;
      if (!this.isOnline && (this.offlineFor -= ms) <= 0) this.isOnline = true;
    },
    offline: () => new Promise(() => undefined),
    now: () => this.now,
  };

  turn(signal = new AbortController().signal): Turn {
    const ask: Ask = {
      turnId: "t1", sessionId: null, prompt: "p", system: "", temperature: null, maxTokens: null,
    };
    const listener = {
      started: () => this.said.push("started"),
      text: (piece: string) => (this.text += piece),
      connected: (yes: boolean) => this.said.push(yes ? "on" : "off"),
    };
    return new Turn(ask, this.around, listener, signal);
  }
}

const stream = (...events: string[]): Step => () => new Response(events.join(""));
const refuse = (status: number, code: string): Step => () =>
  new Response(JSON.stringify({ error: { message: "m", code } }), { status });
const lost: Step = () => {
  throw new TypeError("Failed to fetch");
};
const TURN = 'id: a\nevent: turn\ndata: {"turn_id":"t1","session_id":"s"}\n\n';
const delta = (id: string, text: string): string =>
  `id: ${id}\nevent: delta\ndata: {"text":"${text}"}\n\n`;
const DONE = 'id: z\nevent: done\ndata: {"session_id":"s","finish_reason":"stop"}\n\n';

describe("Turn", () => {
  it("reads an answer to its end", async () => {
    const world = new World([stream(TURN, delta("b", "一"), delta("c", "二"), DONE)]);
    const done = await world.turn().run();
    expect(done.finish_reason).toBe("stop");
    expect(world.text).toBe("一二");
  });

  it("goes on where a stream broke, with the last id that it got", async () => {
    const world = new World([
      stream(TURN, delta("b", "一")),
      lost,
      refuse(502, "upstream_error"),
      stream(delta("c", "二"), DONE),
    ]);
    await world.turn().run();
    expect(world.text).toBe("一二");
    expect(world.requests.slice(1)).toEqual(
      Array(3).fill({ path: "/v1/chat/t1/events", method: "GET", last: "b" }),
    );
  });

  it("asks again only when the server never had the question", async () => {
    const world = new World([lost, refuse(404, "turn_not_found"), stream(TURN, DONE)]);
    await world.turn().run();
    expect(world.requests.map((one) => one.method)).toEqual(["POST", "GET", "POST"]);
  });

  it("gives up after a minute without contact", async () => {
    const world = new World([stream(TURN)]);
    await expect(world.turn().run()).rejects.toBeInstanceOf(ConnectionLost);
    expect(world.now).toBeGreaterThanOrEqual(GIVE_UP_MS);
    expect(world.now).toBeLessThan(GIVE_UP_MS + 10_000);
  });

  it("does not count the time offline", async () => {
    const world = new World([
      () => {
        world.isOnline = false;
        world.offlineFor = 20 * GIVE_UP_MS;
        return new Response(TURN);
      },
      stream(delta("b", "一"), DONE),
    ]);
    await world.turn().run();
    expect(world.text).toBe("一");
    expect(world.now).toBeGreaterThan(10 * GIVE_UP_MS);
  });

  it("takes an error in the stream as the end", async () => {
    const error = 'event: error\ndata: {"error":{"message":"m","code":"upstream_error"}}\n\n';
    const world = new World([stream(TURN, error)]);
    await expect(world.turn().run()).rejects.toBeInstanceOf(TurnFailed);
    expect(world.requests).toHaveLength(1);
  });

  it("hands on a refusal and the time to wait", async () => {
    const world = new World([
      () => new Response("{}", { status: 429, headers: { "retry-after": "7" } }),
    ]);
    const error = await world.turn().run().catch((one: unknown) => one);
    expect(error).toBeInstanceOf(ApiError);
    expect((error as ApiError).retryAfter).toBe(7);
  });

  it("says when a turn from before the reload is gone", async () => {
    const world = new World([refuse(404, "turn_not_found")]);
    await expect(world.turn().reattach()).rejects.toBeInstanceOf(TurnForgotten);
  });

  it("ends at once when it is given up", async () => {
    const abort = new AbortController();
    const world = new World([
      () => {
        abort.abort();
        return new Response(TURN);
      },
    ]);
    await expect(world.turn(abort.signal).run()).rejects.toThrow();
    expect(world.requests).toHaveLength(1);
  });
});
