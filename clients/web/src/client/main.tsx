/** The client at `/`. */
import "../shared/theme.css";
import icon from "../shared/icon.svg";
import { render } from "preact";

import { SERVER } from "../shared/base.js";

const root = document.querySelector("#root");
if (root) render(<main><img src={icon} alt="" width={32} /><h1>Reileta at {SERVER}</h1></main>, root);
