import type { ReactElement } from "react";

import type { Axes } from "../service/contract";

interface Props {
  axes: Axes;
  t: number;
  z: number;
  onChange: (place: { t: number; z: number }) => void;
}

/** Sliders through time and depth. */
export function PlaceSliders({ axes, t, z, onChange }: Props): ReactElement {
  return (
    <div className="places">
      <PlaceSlider label="Frame" count={axes.T ?? 1} value={t} onChange={(next) => onChange({ t: next, z })} />
      <PlaceSlider label="Plane" count={axes.Z ?? 1} value={z} onChange={(next) => onChange({ t, z: next })} />
    </div>
  );
}

interface SliderProps {
  label: string;
  count: number;
  value: number;
  onChange: (value: number) => void;
}

function PlaceSlider({ label, count, value, onChange }: SliderProps): ReactElement | null {
  if (count <= 1) return null;
  return (
    <label className="place">
      <span>{label}</span>
      <input
        type="range"
        min={0}
        max={count - 1}
        value={value}
        aria-label={label}
        aria-valuetext={`${value + 1} of ${count}`}
        onChange={(event) => onChange(Number(event.target.value))}
      />
      <output>
        {value + 1} / {count}
      </output>
    </label>
  );
}
