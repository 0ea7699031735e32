import { useCallback, useEffect, useState } from "react";

import type { Refusal } from "../service/refusal";
import { asRefusal } from "../service/refusal";

export interface Loaded<T> {
  value: T | null;
  refusal: Refusal | null;
  reload: () => void;
}

/**
 * Load something from the service, again whenever `key` changes; null for nothing to load.
 *
 * While it is loaded again, the value before stays, unless the key is another one.
 */
export function useLoaded<T>(key: string | null, load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ key: string | null; value: T | null; refusal: Refusal | null }>({
    key,
    value: null,
    refusal: null,
  });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (key === null) return undefined;
    let wanted = true;
    load().then(
      (value) => wanted && setState({ key, value, refusal: null }),
      (error) =>
        wanted &&
        setState((before) => ({ key, value: before.key === key ? before.value : null, refusal: asRefusal(error) })),
    );
    return () => {
      wanted = false;
    };
    // `load` is a new function at every drawing; the key says when it means something else.
  }, [key, round]);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  const current = state.key === key;
  return { value: current ? state.value : null, refusal: current ? state.refusal : null, reload };
}
