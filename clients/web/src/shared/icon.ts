/** The address of the icon. The build gives it relative to the server. */
import icon from "./icon.svg";
import { SERVER } from "./base.js";

export const ICON = new URL(icon, `${SERVER}/`).href;
