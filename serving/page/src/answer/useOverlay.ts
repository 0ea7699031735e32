import { useMemo, useState } from "react";

import { useLoaded } from "../parts/useLoaded";
import type { Loaded } from "../parts/useLoaded";
import { boxAt, boxPainter } from "../picture/boxes";
import type { LabelStyle, LabelTiles } from "../picture/labelMessages";
import type { Place } from "../picture/Picture";
import { trackPainter, tracksOf } from "../picture/tracks";
import type { Painter } from "../picture/vectors";
import { answerAddress, getObjects } from "../service/calls";
import type { Objects, StoredAnswer, StoredImage } from "../service/contract";
import { hasLabels, isClasses } from "../service/contract";
import { columnTitle, formatValue } from "../table/format";
import { classesOf, placeOf, rowOf } from "./objectIndex";
import { answeredPlace } from "./question";

interface PlaneAndFrame {
  t: number;
  z: number;
}

/** What is drawn over an image for an answer, and which of its objects is selected. */
export interface Overlay {
  /** Whether the answer has something to draw, and whether it is areas. */
  drawn: boolean;
  areas: boolean;
  labels: LabelTiles | null;
  style: LabelStyle;
  colours: Uint32Array | null;
  classes: Map<string, number> | null;
  painters: Painter[];
  centre: Place | null;
  objects: Loaded<Objects>;
  selected: number[];
  /** The object under the pointer in words. */
  hovered: string;
  /** Why nothing is drawn here, if the answer is about another plane or frame. */
  note: string | null;
  drawing: {
    style: LabelStyle;
    onChange: (style: LabelStyle) => void;
    visible: boolean;
    onVisible: (visible: boolean) => void;
  };
  hover: (label: number, at: Place | null) => void;
  pick: (label: number, at: Place) => void;
  selectRow: (row: number) => void;
}

const FIRST_STYLE: LabelStyle = { mode: "outlines", opacity: 1, lineWidth: 2, selected: [] };
const IN_READOUT = 8; // columns

export function useOverlay(
  image: StoredImage,
  answer: StoredAnswer | null,
  place: PlaneAndFrame,
  setPlace: (place: PlaneAndFrame) => void,
): Overlay {
  const [style, setStyle] = useState(FIRST_STYLE);
  const [visible, setVisible] = useState(true);
  const [selection, setSelection] = useState<{ answer: string | null; label: number; centre: Place | null } | null>(
    null,
  );
  const [hovered, setHovered] = useState(0);
  const hasTable = answer !== null && answer.kind !== "image";
  const objects = useLoaded(hasTable ? answer.id : null, () => getObjects(answer!));
  const table = objects.value;
  const current = selection !== null && selection.answer === answer?.id ? selection : null;
  const selected = useMemo(() => (current === null || current.label === 0 ? [] : [current.label]), [current?.label]);
  const classes = useMemo(() => (table === null ? null : classesOf(table)), [table]);
  const tracks = useMemo(() => (table === null ? null : tracksOf(table)), [table]);
  const note = answer === null ? null : elsewhere(answer, place);
  const labels = useMemo(
    () =>
      answer !== null && visible && note === null && hasLabels(answer.kind) ? labelTiles(image, answer, place) : null,
    [image, answer, place, visible, note],
  );
  const painters = useMemo(() => {
    if (table === null || !visible || note !== null) return [];
    const boxes =
      answer !== null && isClasses(answer.kind) && classes !== null
        ? boxPainter(table, classes.colours, selected)
        : null;
    return [tracks === null ? null : trackPainter(tracks, place.t), boxes].filter((one) => one !== null);
  }, [table, tracks, classes, answer, place.t, selected, visible, note]);
  const fullStyle = useMemo(() => ({ ...style, selected }), [style, selected]);

  const selectRow = (row: number): void => {
    const values = table?.rows[row];
    if (table === null || values === undefined || answer === null) return;
    const at = placeOf(table, values);
    setSelection({ answer: answer.id, label: Number(values[0]), centre: at });
    if (at !== null) setPlace({ t: at.t ?? place.t, z: at.z === null ? place.z : Math.round(at.z) });
  };
  const boxes = table !== null && answer !== null && isClasses(answer.kind) ? table : null;
  const labelAt = (label: number, at: Place | null): number =>
    boxes !== null && at !== null ? boxAt(boxes, at) : label;
  const pick = (label: number, at: Place): void =>
    setSelection({ answer: answer?.id ?? null, label: labelAt(label, at), centre: null });
  return {
    drawn: answer !== null && answer.kind !== "image",
    areas: answer !== null && hasLabels(answer.kind),
    labels,
    style: fullStyle,
    colours: classes?.table ?? null,
    classes: classes?.colours ?? null,
    painters,
    centre: current?.centre ?? null,
    objects,
    selected,
    hovered: hovered === 0 || table === null ? "" : inWords(table, hovered, place.t),
    note,
    drawing: { style, onChange: setStyle, visible, onVisible: setVisible },
    hover: (label, at) => setHovered(labelAt(label, at)),
    pick,
    selectRow,
  };
}

function labelTiles(image: StoredImage, answer: StoredAnswer, { t, z }: PlaneAndFrame): LabelTiles {
  const address = `${answerAddress(image.id, answer.id)}/tiles`;
  return { address, levels: answer.levels, tile: answer.tile, t, z, revision: 0 };
}

function elsewhere({ question }: StoredAnswer, place: PlaneAndFrame): string | null {
  const [plane, frame] = [answeredPlace(question.plane), answeredPlace(question.frame)];
  if (plane !== null && plane !== place.z) return `The answer is about plane ${plane + 1}.`;
  if (frame !== null && frame !== place.t) return `The answer is about frame ${frame + 1}.`;
  return null;
}

function inWords(table: Objects, label: number, frame: number): string {
  const row = table.rows[rowOf(table, label, frame)];
  if (row === undefined) return `Object ${label}`;
  const parts = table.columns
    .slice(1, IN_READOUT)
    .map((name, place) => `${columnTitle(name)} ${formatValue(row[place + 1] ?? null)}`);
  return `Object ${label}: ${parts.join(", ")}`;
}
