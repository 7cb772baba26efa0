/** The address of the icon. The build gives it relative to the script. */
import icon from "./icon.svg";

export const ICON = new URL(icon, import.meta.url).href;
