"""A window that shows one picture after the other."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from squeezedet.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

ADVICE = "write a video with `save`, or open the page of `squeezedet serve` in a browser"


class Window:
    """Opens at once and shows pictures at their size, the larger ones as large as the screen.

    Closing it, or the keys q and Escape, set ``closed``.

    Args:
        title: of the window.

    Attributes:
        closed: the user has seen enough.

    Raises:
        UsageError: there is no screen, or this Python has no tkinter.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise UsageError(f"`show` needs Python's tkinter; {ADVICE}") from error
        try:
            self._root = tkinter.Tk(className="squeezedet")
        except tkinter.TclError as error:
            raise UsageError(f"`show` finds no screen; {ADVICE}") from error
        self.closed = False
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, self._close)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._picture: Any = None  # tkinter keeps no reference to what it shows
        self._root.update()

    def __enter__(self) -> Self:
        return self

    def show(self, picture: Image) -> None:
        """Show this picture until the next one comes."""
        from PIL import ImageTk

        room = (self._root.winfo_screenwidth(), self._root.winfo_screenheight())
        if picture.width > room[0] or picture.height > room[1]:
            picture.thumbnail(room)
        self._picture = ImageTk.PhotoImage(picture, master=self._root)
        self._label.configure(image=self._picture)
        self._root.update()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._picture = None
        self._root.destroy()

    def _close(self, *_: object) -> None:
        self.closed = True
