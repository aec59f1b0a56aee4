/** Drawn here: 20 units wide, one stroke, no font and no sprite to load. */

const PATHS = {
  plus: "M10 4v12M4 10h12",
  menu: "M3 5.5h14M3 10h14M3 14.5h14",
  search: "M9 3.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11ZM13 13l4 4",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  close: "M5 5l10 10M15 5L5 15",
  send: "M10 16V4.5M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  down: "M10 4v12M5 11l5 5 5-5",
  copy: "M7 7h9v9H7zM4 13V4h9",
  check: "M4 10.5l4 4 8-9",
  gear: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  pen: "M4 16l.8-3.4L13 4.4l2.6 2.6-8.2 8.2L4 16Z",
  bin: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6",
  out: "M10 3v9M6 8.5l4 4 4-4M4 16h12",
  leave: "M12 4H5v12h7M9 10h8M14 7l3 3-3 3",
  retry: "M16 10a6 6 0 1 1-1.8-4.3M16 3v3.5h-3.5",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <circle cx="12.4" cy="16" r="7" />
      <circle cx="19.6" cy="16" r="7" />
    </svg>
  );
}
