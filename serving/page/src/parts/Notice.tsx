import type { ReactElement } from "react";

import type { Refusal } from "../service/refusal";

interface Props {
  refusal: Refusal;
  onRetry?: () => void;
}

/** What went wrong and what to do, with a way to try again. */
export function Notice({ refusal, onRetry }: Props): ReactElement {
  return (
    <div className="notice" role="alert">
      <p>{refusal.message}</p>
      {refusal.hint !== null && <p className="hint">{refusal.hint}</p>}
      {onRetry !== undefined && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}
