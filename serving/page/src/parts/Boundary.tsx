import type { ReactElement, ReactNode } from "react";
import { Component } from "react";

import { Refusal } from "../service/refusal";
import { Notice } from "./Notice";

/** Says so where a part of the page fails, instead of an empty page. */
export class Boundary extends Component<{ children: ReactNode }, { failed: string | null }> {
  override state = { failed: null };

  static getDerivedStateFromError(error: unknown): { failed: string } {
    return { failed: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactElement {
    if (this.state.failed === null) return <>{this.props.children}</>;
    const refusal = new Refusal("This part of the page has failed. What was stored is not lost.", this.state.failed, 0);
    return <Notice refusal={refusal} onRetry={() => this.setState({ failed: null })} />;
  }
}
