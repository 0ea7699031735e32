import type { ReactElement } from "react";
import { useEffect, useState } from "react";

interface Props {
  label: string;
  onCancel?: () => void;
}

/** That something takes time, for how long already, and a way to stop it. */
export function Busy({ label, onCancel }: Props): ReactElement {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setSeconds((before) => before + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <div className="busy">
      <progress aria-label={label} />
      <span role="status">{label}</span> <span className="seconds">{seconds > 0 && `${seconds} s`}</span>
      {onCancel !== undefined && (
        <button type="button" className="quiet" onClick={onCancel}>
          Cancel
        </button>
      )}
    </div>
  );
}
