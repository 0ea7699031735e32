import { noAnswer, Refusal, refusalOf, tooSlow } from "./refusal";
import { currentToken, tokenRefused } from "./session";

export interface RequestOptions {
  method?: string;
  body?: BodyInit;
  headers?: Record<string, string>;
  /** Seconds until the request is given up, the reading of its body included. */
  seconds?: number;
  signal?: AbortSignal;
}

/**
 * Send a request with the token and read the response.
 *
 * Throws a Refusal with words for a person, or an AbortError if the caller's signal ended the request.
 */
export async function request<T>(
  path: string,
  read: (response: Response) => Promise<T>,
  { method = "GET", body, headers = {}, seconds = 30, signal }: RequestOptions = {},
): Promise<T> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), seconds * 1000);
  const token = currentToken();
  try {
    const response = await fetch(path, {
      method,
      body,
      headers: token === null ? headers : { ...headers, Authorization: `Bearer ${token}` },
      signal: signal === undefined ? timeout.signal : AbortSignal.any([timeout.signal, signal]),
      credentials: "omit",
      redirect: "error",
    });
    if (!response.ok) throw await refusalOf(response);
    return await read(response);
  } catch (error) {
    if (signal?.aborted) throw new DOMException("the caller cancelled the request", "AbortError");
    if (error instanceof Refusal) {
      if (error.status === 401) tokenRefused();
      throw error;
    }
    if (timeout.signal.aborted) throw tooSlow(seconds);
    throw noAnswer();
  } finally {
    clearTimeout(timer);
  }
}

export function getJson<T>(path: string, options?: RequestOptions): Promise<T> {
  return request(path, (response) => response.json() as Promise<T>, options);
}

export function sendJson<T>(path: string, value: unknown, options: RequestOptions = {}): Promise<T> {
  return getJson<T>(path, {
    ...options,
    method: options.method ?? "POST",
    body: JSON.stringify(value),
    headers: { "Content-Type": "application/json", ...options.headers },
  });
}

export function remove(path: string): Promise<void> {
  return request(path, async () => undefined, { method: "DELETE" });
}
