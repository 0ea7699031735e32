import type { ReactElement } from "react";

import type { Tool } from "./tools";
import { TOOLS } from "./tools";

interface Props {
  tool: Tool;
  onTool: (tool: Tool) => void;
  radius: number;
  onRadius: (radius: number) => void;
  /** Null if there is nothing to undo. */
  onUndo: (() => void) | null;
  onRedo: (() => void) | null;
}

/** The tools, undo and redo. */
export function Toolbar({ tool, onTool, radius, onRadius, onUndo, onRedo }: Props): ReactElement {
  const current = TOOLS.find((one) => one.tool === tool);
  return (
    <div className="toolbar">
      <div className="line tools" role="group" aria-label="Tools">
        {TOOLS.map((one) => (
          <button
            key={one.tool}
            type="button"
            aria-pressed={one.tool === tool}
            title={`${one.help} Key: ${one.key.toUpperCase()}`}
            onClick={() => onTool(one.tool)}
          >
            {one.name}
          </button>
        ))}
        <button type="button" disabled={onUndo === null} title="Ctrl+Z" onClick={() => onUndo?.()}>
          Undo
        </button>
        <button type="button" disabled={onRedo === null} title="Ctrl+Y" onClick={() => onRedo?.()}>
          Redo
        </button>
      </div>
      <p className="hint">{current?.help}</p>
      {(tool === "brush" || tool === "eraser") && (
        <label className="place">
          <span>Radius</span>
          <input
            type="range"
            min={1}
            max={40}
            value={radius}
            aria-label="Radius of the brush"
            onChange={(event) => onRadius(Number(event.target.value))}
          />
          <output>{radius} px</output>
        </label>
      )}
    </div>
  );
}
