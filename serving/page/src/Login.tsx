import type { FormEvent, ReactElement } from "react";
import { useEffect, useRef, useState } from "react";

import { Notice } from "./parts/Notice";
import type { Refusal } from "./service/refusal";
import { logIn } from "./service/session";

interface Props {
  /** Why the token before was refused. */
  refused: Refusal | null;
  onToken: () => Promise<void>;
}

/** Asks for the token before anything is shown. */
export function Login(props: Props): ReactElement {
  return (
    <main className="login">
      <h1>Cytoray</h1>
      <LoginForm {...props} />
    </main>
  );
}

/** Asks for a token over the page, which keeps what it shows. */
export function LoginDialog(props: Props): ReactElement {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="expired-title" onCancel={(event) => event.preventDefault()}>
      <h2 id="expired-title">Log in again</h2>
      <p>The service no longer accepts your token. The page keeps what it shows.</p>
      <LoginForm {...props} />
    </dialog>
  );
}

function LoginForm({ refused, onToken }: Props): ReactElement {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    logIn(token);
    setBusy(true);
    await onToken();
    setBusy(false);
  };
  return (
    <form className="fields" onSubmit={(event) => void submit(event)}>
      <label className="field">
        <span>Token</span>
        <input
          type="password"
          autoComplete="off"
          required
          autoFocus
          placeholder="cyt_…"
          value={token}
          onChange={(event) => setToken(event.target.value)}
        />
      </label>
      <p className="hint">The operator of the service gives you one. The page keeps it until you close this tab.</p>
      <button type="submit" className="main" disabled={busy}>
        Log in
      </button>
      {refused !== null && <Notice refusal={refused} />}
    </form>
  );
}
