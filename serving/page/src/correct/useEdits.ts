import { useEffect, useRef, useState } from "react";

import type { Loaded } from "../parts/useLoaded";
import { useLoaded } from "../parts/useLoaded";
import type { Edit, ItemStatus, RecordedEdit } from "../service/datasets";
import { getEdits, getItem, saveEdits } from "../service/datasets";
import { asRefusal, Refusal } from "../service/refusal";

/** Edits of this person that met edits of another one. */
export interface Conflict {
  mine: Edit[];
  theirs: RecordedEdit[];
  /** The revision to build on. */
  revision: number;
}

export interface Edits {
  item: Loaded<ItemStatus>;
  recorded: RecordedEdit[];
  /** Edits that are not stored yet. */
  waiting: number;
  refusal: Refusal | null;
  conflict: Conflict | null;
  save: (edits: Edit[]) => void;
  /** Send again what the service did not take. */
  retry: () => void;
  /** Give up the edit that the service refused, and store those after it. */
  skip: () => void;
  /** Give up the edits that were not stored. */
  drop: () => void;
}

/** The edits of an item, stored one after the other as they happen. */
export function useEdits(name: string, id: string): Edits {
  const key = `${name}/${id}`;
  const item = useLoaded(key, () => getItem(name, id));
  const recorded = useLoaded(`${key} edits`, () => getEdits(name, id));
  const queue = useRef<Edit[][]>([]);
  const revision = useRef<number | null>(null);
  const sending = useRef(false);
  const [waiting, setWaiting] = useState(0);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const [conflict, setConflict] = useState<Conflict | null>(null);
  const known = item.value?.revision ?? 0;
  if (revision.current === null || known > revision.current) revision.current = item.value?.revision ?? null;

  useEffect(() => {
    if (waiting === 0) return undefined;
    const warn = (event: BeforeUnloadEvent): void => event.preventDefault();
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [waiting]);

  const send = async (): Promise<void> => {
    if (sending.current || revision.current === null) return;
    sending.current = true;
    try {
      while (queue.current.length > 0) {
        const edits = queue.current[0]!;
        revision.current = (await saveEdits(name, id, revision.current, edits)).revision;
        queue.current.shift();
        setWaiting(queue.current.length);
        item.reload();
        recorded.reload();
      }
      setRefusal(null);
    } catch (error) {
      const met = asRefusal(error);
      const theirs = conflictIn(met);
      if (theirs !== null) setConflict({ mine: queue.current.flat(), ...theirs });
      else setRefusal(met);
    } finally {
      sending.current = false;
    }
  };
  return {
    item,
    recorded: recorded.value ?? [],
    waiting,
    refusal: refusal ?? recorded.refusal,
    conflict,
    save: (edits) => {
      queue.current.push(edits);
      setWaiting(queue.current.length);
      // After a refusal the person decides; edits that follow wait behind the refused one.
      if (refusal === null && conflict === null) void send();
    },
    retry: () => {
      if (conflict !== null) revision.current = conflict.revision;
      setConflict(null);
      setRefusal(null);
      if (recorded.refusal !== null) recorded.reload();
      void send();
    },
    skip: () => {
      queue.current.shift();
      setWaiting(queue.current.length);
      setRefusal(null);
      void send();
    },
    drop: () => {
      queue.current = [];
      if (conflict !== null) revision.current = conflict.revision;
      setWaiting(0);
      setConflict(null);
      setRefusal(null);
      item.reload();
      recorded.reload();
    },
  };
}

function conflictIn({ status, body }: Refusal): Pick<Conflict, "theirs" | "revision"> | null {
  const said = body as { revision?: unknown; theirs?: unknown } | null;
  if (status !== 409 || typeof said?.revision !== "number" || !Array.isArray(said.theirs)) return null;
  return { revision: said.revision, theirs: said.theirs as RecordedEdit[] };
}
