import type { ReactElement } from "react";
import { cloneElement, useId } from "react";

/** A control with its name. */
export function Field({ label, children }: { label: string; children: ReactElement<{ id?: string }> }): ReactElement {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {cloneElement(children, { id })}
    </div>
  );
}
