import { useRef, useState } from "react";

import type { Refusal } from "../service/refusal";
import { asRefusal, isCancelled } from "../service/refusal";

export interface Action {
  /** What is being done; null if nothing. */
  busy: string | null;
  refusal: Refusal | null;
  /** Do something; while it runs, `busy` has the label. Resolves to whether it succeeded. */
  run: (label: string, work: (signal: AbortSignal) => Promise<void>) => Promise<boolean>;
  /** Do again what failed. */
  retry: () => void;
  cancel: () => void;
}

/** Something that a person starts, waits for, may cancel, and may try again. */
export function useAction(): Action {
  const [busy, setBusy] = useState<string | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const abort = useRef<AbortController | null>(null);
  const last = useRef<() => void>(() => {});

  const run: Action["run"] = async (label, work) => {
    last.current = () => void run(label, work);
    const controller = new AbortController();
    abort.current = controller;
    setBusy(label);
    setRefusal(null);
    try {
      await work(controller.signal);
      return true;
    } catch (error) {
      if (!isCancelled(error)) setRefusal(asRefusal(error));
      return false;
    } finally {
      if (abort.current === controller) setBusy(null);
    }
  };
  return {
    busy,
    refusal,
    run,
    retry: () => last.current(),
    cancel: () => abort.current?.abort(),
  };
}
