/** Types of what the page takes of Preact and htm; `preact.js` is htm's own standalone build. */

export type Child = unknown;
export type Cleanup = void | undefined | (() => void);
export type Setter<T> = (next: T | ((before: T) => T)) => void;

export function html(strings: TemplateStringsArray, ...values: unknown[]): Child;
export function render(what: Child, where: Element): void;
export function useState<T>(first: T | (() => T)): [T, Setter<T>];
export function useEffect(effect: () => Cleanup, of?: readonly unknown[]): void;
export function useRef<T>(first: T): { current: T };
export function useCallback<T extends (...given: any[]) => any>(callback: T, of: readonly unknown[]): T;
export function useMemo<T>(make: () => T, of: readonly unknown[]): T;
