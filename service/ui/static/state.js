/** Values that screens follow, and what they load. */

import { useEffect, useState } from "./vendor/preact.js";

/** A value that tells its followers when it changes. @template T */
export class State {
  /** @param {T} value */
  constructor(value) {
    this.value = value;
    /** @type {Set<(value: T) => void>} */
    this.followers = new Set();
  }

  /** @param {T} value */
  set(value) {
    if (value === this.value) return;
    this.value = value;
    for (const follower of [...this.followers]) follower(value);
  }

  /** Call `follower` at each change, until what is returned is called. @param {(value: T) => void} follower */
  follow(follower) {
    this.followers.add(follower);
    return () => {
      this.followers.delete(follower);
    };
  }
}

/** The value of a state, in a component. @template T @param {State<T>} state @returns {T} */
export function useValue(state) {
  const [value, setValue] = useState(state.value);
  useEffect(() => {
    setValue(() => state.value);
    return state.follow((next) => setValue(() => next));
  }, [state]);
  return value;
}

/**
 * What a screen shows: loaded when it is first shown, when `of` changes, and when it is asked for again.
 *
 * @template T
 * @typedef {{ data: T | null, error: any, loading: boolean, reload: () => void }} Loaded
 */

/**
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} of
 * @returns {Loaded<T>}
 */
export function useLoaded(load, of) {
  const [found, setFound] = useState(
    /** @type {{ data: T | null, error: any, loading: boolean }} */ ({
      data: null,
      error: null,
      loading: true,
    }),
  );
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const over = new AbortController();
    setFound((before) => ({ ...before, loading: true }));
    load(over.signal).then(
      (data) => over.signal.aborted || setFound({ data, error: null, loading: false }),
      (error) => over.signal.aborted || setFound((before) => ({ ...before, error, loading: false })),
    );
    return () => over.abort();
  }, [...of, turn]);
  const reload = () => setTurn((before) => before + 1);
  // What failed while the service was away is asked for again once it is back.
  useEffect(() => (found.error ? revived.follow(reload) : undefined), [found.error]);
  return { ...found, reload };
}

/** Call `act` every so many milliseconds while the page is looked at. @param {() => void} act @param {number} pause */
export function useRepeat(act, pause) {
  useEffect(() => {
    if (!pause) return undefined;
    const timer = setInterval(() => document.hidden || act(), pause);
    return () => clearInterval(timer);
  }, [act, pause]);
}

/** How often the service came back after it was away. @type {State<number>} */
export const revived = new State(0);

/** What is said to whoever hears the page. @type {State<string>} */
export const announcement = new State("");

/** Say something to whoever hears the page. @param {string} text */
export function announce(text) {
  announcement.set(text);
}
