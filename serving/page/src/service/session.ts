/** The token: in the memory of this tab and in its sessionStorage, nowhere else. */

const KEY = "cytoray.token";

let token: string | null = null;
let onExpired: () => void = () => {};

export function restoreToken(): void {
  token = sessionStorage.getItem(KEY);
}

export function currentToken(): string | null {
  return token;
}

/** Use a token for the requests of this thread without storing it: a worker gets it from the page. */
export function holdToken(value: string | null): void {
  token = value;
}

export function logIn(value: string): void {
  token = value.trim();
  sessionStorage.setItem(KEY, token);
}

export function logOut(): void {
  token = null;
  sessionStorage.removeItem(KEY);
}

/** Choose what happens when the service refuses the token. */
export function whenExpired(listener: () => void): void {
  onExpired = listener;
}

export function tokenRefused(): void {
  onExpired();
}
