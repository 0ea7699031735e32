/** A request that was not answered as hoped, in words for a person. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly hint: string | null,
    /** The HTTP status; 0 if there was no response. */
    readonly status: number,
    readonly body: unknown = null,
  ) {
    super(message);
  }
}

const FALLBACK: Record<number, [string, string]> = {
  401: ["The service does not accept the token.", "Log in again with a valid token."],
  404: ["This does not exist any more.", "It may have expired, or someone deleted it."],
  413: ["The file is larger than the service accepts.", "Use a smaller file, or submit a job."],
  429: ["The service is busy.", "Wait for a moment, then try again."],
  502: ["The service does not answer.", "Wait for a moment, then try again."],
  503: ["The service is not ready.", "Wait for a moment, then try again."],
  507: ["The disk of the service is full.", "Delete images, or ask the operator."],
};

/** Read what the service says about a refused request. */
export async function refusalOf(response: Response): Promise<Refusal> {
  const body: unknown = await response.json().catch(() => null);
  if (isErrorBody(body))
    return new Refusal(asSentence(body.message), body.hint ? asSentence(body.hint) : null, response.status, body);
  const [message, hint] = FALLBACK[response.status] ?? [
    `The service refused this with status ${response.status}.`,
    "Try again. If it happens again, ask the operator.",
  ];
  return new Refusal(message, hint, response.status, body);
}

export function noAnswer(): Refusal {
  return new Refusal("The service does not answer.", "Check your connection, then try again.", 0);
}

export function tooSlow(seconds: number): Refusal {
  return new Refusal(`The service did not answer within ${seconds} seconds.`, "Try again.", 0);
}

/** Make a refusal of anything that was thrown. */
export function asRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new Refusal(`The page failed: ${message}`, "Load the page again.", 0);
}

/** Whether a request ended because its caller no longer wanted it. */
export function isCancelled(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

function isErrorBody(body: unknown): body is { message: string; hint?: string | null } {
  return typeof body === "object" && body !== null && typeof (body as { message?: unknown }).message === "string";
}

/** The service writes half sentences, as command lines do. */
function asSentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}
