import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./App";
import { restoreToken } from "./service/session";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/controls.css";
import "./styles/picture.css";
import "./styles/table.css";

restoreToken();
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
