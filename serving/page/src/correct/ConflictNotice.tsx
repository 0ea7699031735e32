import type { ReactElement } from "react";

import { moment } from "../parts/words";
import { editInWords } from "./history";
import type { Conflict } from "./useEdits";

interface Props {
  conflict: Conflict;
  onKeep: () => void;
  onDrop: () => void;
}

/** Shows both sides when another person changed the image in the meantime. */
export function ConflictNotice({ conflict, onKeep, onDrop }: Props): ReactElement {
  return (
    <section className="notice" role="alert" aria-labelledby="conflict-title">
      <h2 id="conflict-title">Another person changed this image</h2>
      <p>Their changes are stored. Yours are not stored yet.</p>
      <div className="both">
        <div>
          <h3>Theirs</h3>
          <ul>
            {conflict.theirs.map((one) => (
              <li key={one.number}>
                {one.who} {editInWords(one.edit)}, {moment(one.when)}
              </li>
            ))}
          </ul>
        </div>
        <div>
          <h3>Yours</h3>
          <ul>
            {conflict.mine.map((edit, place) => (
              <li key={place}>You {editInWords(edit)}</li>
            ))}
          </ul>
        </div>
      </div>
      <div className="line">
        <button type="button" className="main" onClick={onKeep}>
          Store mine after theirs
        </button>
        <button type="button" onClick={onDrop}>
          Drop mine
        </button>
      </div>
    </section>
  );
}
