/** The console at `/console`, for admins of the server. */
import "../shared/theme.css";
import { render } from "preact";

const root = document.querySelector("#root");
if (root) render(<main><h1>Console</h1><p>There is nothing here yet.</p></main>, root);
