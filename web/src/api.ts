/** The gateway's HTTP interface as the page uses it. Throws ApiError (it answered) or
 *  ConnectionLost (it did not). */

export interface SessionHead {
  id: string;
  title: string;
  created_at: number | string;
  updated_at: number | string;
  turns: number;
}

export interface SessionMessage {
  role: "user" | "assistant";
  content: string;
  created_at?: number | string;
  turn_id?: string;
  finish_reason?: string;
  engine?: string;
  truncated?: boolean;
}

export interface Session {
  id: string;
  title: string;
  system?: string;
  messages: SessionMessage[];
}

export interface SessionPage {
  data: SessionHead[];
  has_more: boolean;
  next_cursor?: string | null;
}

export interface EngineStatus {
  name: string;
  state: "starting" | "healthy" | "suspect" | "draining" | "down";
  running: number;
  waiting: number;
}

export interface Status {
  model: string;
  context_length: number | null;
  ready: boolean;
  engines: EngineStatus[];
  queue_depth: number;
  ttft_p50_seconds: number | null;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string | null,
    message: string,
    readonly retryAfter: number | null = null,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

export class ConnectionLost extends Error {}

export interface Wire {
  fetch: typeof fetch;
  key: () => string;
}

const ANSWER_WITHIN_MS = 20_000;

export function retryAfterSeconds(headers: Headers): number | null {
  const value = Number(headers.get("retry-after") ?? "");
  return headers.get("retry-after") && Number.isFinite(value) ? Math.max(0, Math.ceil(value)) : null;
}

export async function errorOf(response: Response): Promise<ApiError> {
  let message = "";
  let code: string | null = null;
  try {
    const body = (await response.json()) as { error?: { message?: string; code?: string } };
    message = body.error?.message ?? "";
    code = body.error?.code ?? null;
  } catch {
    // Not JSON: something in between answered. The status says enough.
  }
  const id = response.headers.get("x-request-id");
  return new ApiError(response.status, code, message, retryAfterSeconds(response.headers), id);
}

export class Api {
  constructor(private readonly wire: Wire) {}

  /** The response as soon as its head is there; the body may stream for as long as it likes. */
  async open(path: string, init: RequestInit = {}): Promise<Response> {
    const response = await this.reach(path, init);
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  private async reach(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("authorization", `Bearer ${this.wire.key()}`);
    if (init.body) headers.set("content-type", "application/json");
    try {
      return await this.wire.fetch(path, { ...init, headers, cache: "no-store" });
    } catch (error) {
      throw new ConnectionLost(String(error));
    }
  }

  private async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    const response = await this.open(path, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS), ...init });
    try {
      return (await response.json()) as T;
    } catch (error) {
      throw new ConnectionLost(String(error));
    }
  }

  status = (): Promise<Status> => this.json("/v1/status");

  sessions(query: string, cursor: string | null): Promise<SessionPage> {
    const search = new URLSearchParams();
    if (query) search.set("q", query);
    if (cursor) search.set("cursor", cursor);
    return this.json(`/v1/sessions${search.size ? `?${search}` : ""}`);
  }

  session = (id: string): Promise<Session> => this.json(sessionPath(id));

  async rename(id: string, title: string): Promise<void> {
    await this.open(sessionPath(id), { method: "PATCH", body: JSON.stringify({ title }) });
  }

  async remove(id: string): Promise<void> {
    await this.open(sessionPath(id), { method: "DELETE", keepalive: true });
  }

  async export(id: string, format: "md" | "json"): Promise<Blob> {
    return (await this.open(`${sessionPath(id)}/export?format=${format}`)).blob();
  }

  async stop(turnId: string): Promise<void> {
    await this.open(`/v1/chat/${encodeURIComponent(turnId)}/stop`, {
      method: "POST",
      signal: AbortSignal.timeout(5_000),
    });
  }
}

const sessionPath = (id: string): string => `/v1/sessions/${encodeURIComponent(id)}`;
