import type { KeyboardEvent, ReactElement } from "react";
import { useEffect, useId, useMemo, useRef, useState } from "react";

import type { Objects, Value } from "../service/contract";
import { columnTitle, formatValue } from "./format";
import type { Order } from "./sorting";
import { sortedPlaces } from "./sorting";

const ROW = 28; // pixels, as in table.css
const AROUND = 8; // rows above and below those in view

interface Props {
  objects: Objects;
  /** Labels of the selected objects. */
  selected: number[];
  onSelect: (row: number) => void;
}

/** All objects in rows; only the rows in view exist in the document. */
export function ObjectTable({ objects, selected, onSelect }: Props): ReactElement {
  const { columns, rows } = objects;
  const id = useId();
  const body = useRef<HTMLDivElement>(null);
  const [order, setOrder] = useState<Order | null>(null);
  const [view, setView] = useState({ top: 0, height: 400 });
  const places = useMemo(() => sortedPlaces(rows, order), [rows, order]);
  const chosen = selected[0] ?? null;
  const chosenPlace = useMemo(
    () => (chosen === null ? -1 : places.findIndex((place) => rows[place]![0] === chosen)),
    [places, rows, chosen],
  );
  useScrolledTo(body, chosenPlace);

  const first = Math.max(0, Math.floor(view.top / ROW) - AROUND);
  const last = Math.min(places.length, Math.ceil((view.top + view.height) / ROW) + AROUND);
  const measure = (element: HTMLElement): void => setView({ top: element.scrollTop, height: element.clientHeight });
  const move = (event: KeyboardEvent): void => {
    const page = Math.floor(view.height / ROW) - 1;
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined || places.length === 0) return;
    event.preventDefault();
    onSelect(places[Math.max(0, Math.min(places.length - 1, chosenPlace + step))]!);
  };
  const numbers = useMemo(() => columns.map((_, column) => isNumeric(rows, column)), [columns, rows]);
  const width = useMemo(() => widthOf(columns, numbers), [columns, numbers]);
  return (
    <div
      className="table"
      role="grid"
      aria-label="Objects"
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length}
      aria-activedescendant={chosenPlace >= first && chosenPlace < last ? `${id}-${chosenPlace}` : undefined}
      tabIndex={0}
      ref={body}
      onScroll={(event) => measure(event.currentTarget)}
      onFocus={(event) => measure(event.currentTarget)}
      onKeyDown={move}
    >
      <div className="row head" role="row" aria-rowindex={1} style={width}>
        {columns.map((name, column) => (
          <Heading key={name} {...{ name, column, order, setOrder }} number={numbers[column] ?? false} />
        ))}
      </div>
      <div className="rows" role="rowgroup" style={{ height: places.length * ROW, minWidth: width.minWidth }}>
        {Array.from(places.subarray(first, last), (place, offset) => (
          <div
            key={place}
            id={`${id}-${first + offset}`}
            role="row"
            aria-rowindex={first + offset + 2}
            aria-selected={selected.includes(Number(rows[place]![0]))}
            className="row"
            style={{ ...width, transform: `translateY(${(first + offset) * ROW}px)` }}
            onClick={() => onSelect(place)}
          >
            {rows[place]!.map((value, column) => (
              <span key={column} role="gridcell" className={numbers[column] ? "number" : ""}>
                {formatValue(value)}
              </span>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

function isNumeric(rows: Value[][], column: number): boolean {
  const known = rows.find((row) => row[column] !== null);
  return known !== undefined && typeof known[column] === "number";
}

/** Keep all columns readable; the table scrolls sideways if the panel is narrower. */
function widthOf(columns: string[], numbers: boolean[]): { minWidth: string; gridTemplateColumns: string } {
  const widths = columns.map((name, column) => Math.max(numbers[column] ? 5 : 8, 0.6 * columnTitle(name).length + 1.5));
  return {
    minWidth: `${widths.reduce((sum, one) => sum + one, 0)}rem`,
    gridTemplateColumns: widths.map((one) => `minmax(${one}rem, 1fr)`).join(" "),
  };
}

interface HeadingProps {
  name: string;
  column: number;
  /** Numbers stand at the right side. */
  number: boolean;
  order: Order | null;
  setOrder: (order: Order) => void;
}

function Heading({ name, column, number, order, setOrder }: HeadingProps): ReactElement {
  const mine = order?.column === column ? order : null;
  const sort = mine === null ? "none" : mine.descending ? "descending" : "ascending";
  return (
    <span role="columnheader" aria-sort={sort} className={number ? "number" : ""}>
      <button type="button" onClick={() => setOrder({ column, descending: mine !== null && !mine.descending })}>
        {columnTitle(name)}
        <span aria-hidden="true">{mine === null ? "" : mine.descending ? " ▾" : " ▴"}</span>
      </button>
    </span>
  );
}

/** Scroll so that a row is in view when it becomes the selected one. */
function useScrolledTo(body: { current: HTMLDivElement | null }, place: number): void {
  useEffect(() => {
    const element = body.current;
    if (element === null || place < 0) return;
    const [top, bottom] = [place * ROW, (place + 2) * ROW]; // the heading covers the first row in view
    if (top < element.scrollTop) element.scrollTop = top;
    else if (bottom > element.scrollTop + element.clientHeight) element.scrollTop = bottom - element.clientHeight;
  }, [body, place]);
}
