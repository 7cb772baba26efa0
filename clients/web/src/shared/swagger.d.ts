/** The parts of Swagger UI that the page uses. */
declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  interface Values {
    get(name: string): unknown;
  }
  interface Operations {
    filter(keep: (operation: Values) => boolean): Operations;
    readonly size: number;
  }
  interface Tag {
    get(name: "operations"): Operations;
    set(name: "operations", operations: Operations): Tag;
  }
  export interface Tags {
    map(change: (tag: Tag) => Tag): Tags;
    filter(keep: (tag: Tag) => boolean): Tags;
  }
  /** What a plugin gets. */
  export interface System {
    React: { createElement(type: string, props: null, ...children: unknown[]): unknown };
  }
  interface Ui {
    preauthorizeApiKey(scheme: string, token: string): void;
  }
  export default function SwaggerUI(options: Record<string, unknown>): Ui;
}
