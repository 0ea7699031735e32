import { useEffect, useRef } from "react";

/** Call functions for keys such as "b", "Delete" or "ctrl+z", except while a person types. */
export function useKeys(keys: Record<string, (() => void) | null>): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea, dialog") !== null || event.altKey) return;
      const name =
        (event.ctrlKey || event.metaKey ? "ctrl+" : "") +
        (event.key.length === 1 ? event.key.toLowerCase() : event.key);
      const act = latest.current[name];
      if (act === undefined || act === null) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    };
    // Before the viewer, which has keys of its own.
    window.addEventListener("keydown", press, { capture: true });
    return () => window.removeEventListener("keydown", press, { capture: true });
  }, []);
}
