import type { ReactElement } from "react";

import { Field } from "../parts/Field";
import { cssColour } from "../picture/colours";
import type { LabelStyle } from "../picture/labelMessages";

interface Props {
  style: LabelStyle;
  onChange: (style: LabelStyle) => void;
  visible: boolean;
  onVisible: (visible: boolean) => void;
  /** False for boxes, which have no area to fill. */
  areas: boolean;
  /** Colours of classes, if the answer has classes. */
  classes: Map<string, number> | null;
}

/** How objects are drawn over the image. */
export function LabelPanel({ style, onChange, visible, onVisible, areas, classes }: Props): ReactElement {
  return (
    <section className="panel" aria-labelledby="objects-title">
      <h2 id="objects-title">Objects in the picture</h2>
      <label className="check">
        <input type="checkbox" checked={visible} onChange={(event) => onVisible(event.target.checked)} />
        <span>Show objects</span>
      </label>
      {areas && <AreaFields style={style} onChange={onChange} />}
      {classes !== null && (
        <ul className="legend" aria-label="Colours of classes">
          {[...classes].map(([name, colour]) => (
            <li key={name}>
              <span className="swatch" style={{ backgroundColor: cssColour(colour) }} aria-hidden="true" />
              {name}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function AreaFields({ style, onChange }: Pick<Props, "style" | "onChange">): ReactElement {
  return (
    <>
      <Field label="Draw">
        <select
          value={style.mode}
          onChange={(event) => onChange({ ...style, mode: event.target.value as LabelStyle["mode"] })}
        >
          <option value="outlines">outlines</option>
          <option value="filled">filled areas</option>
        </select>
      </Field>
      <Field label="Opacity">
        <input
          type="range"
          min={0.1}
          max={1}
          step={0.05}
          value={style.opacity}
          onChange={(event) => onChange({ ...style, opacity: Number(event.target.value) })}
        />
      </Field>
    </>
  );
}
