/** A native modal dialog: focus is kept inside and given back by the browser. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface Props {
  label: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Modal({ label, onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const outside = (event: MouseEvent): void => {
    if (event.target === dialog.current) onClose();
  };
  return (
    <dialog ref={dialog} class="modal" aria-label={label} onClose={onClose} onMouseDown={outside}>
      <div class="modal-inside">{children}</div>
    </dialog>
  );
}
