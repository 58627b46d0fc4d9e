"""Drives VSPreview without a screen: ``python previewer.py SCRIPT EXPECTED.npy [SCREENSHOT.png]``.

Seeks at random in the script's clip and reloads it, and compares every picture that is shown with
what is expected: (frames, 3, height, width) of uint8. Prints the numbers of pictures and of wrong
ones.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
from PyQt6.QtGui import QImage
from PyQt6.QtWidgets import QApplication
from vspreview import init

RELOADS = 20
SEEKS = 6


def shown(window: Any) -> Any:
    """The picture on the screen, (3, height, width)."""
    item = window.current_output.graphics_scene_item
    image = item.pixmap().toImage().convertToFormat(QImage.Format.Format_RGB888)
    width, height = image.width(), image.height()
    rows = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    rows = rows.reshape(height, image.bytesPerLine())[:, : 3 * width]
    return rows.reshape(height, width, 3).transpose(2, 0, 1)


def drive(app: QApplication) -> None:
    window = init.main.main_window
    window.show()
    expected = np.load(sys.argv[2])
    rng = random.Random(5)
    pictures = wrong = 0
    for reload in range(RELOADS + 1):
        if reload:
            window.reload_script()
        app.processEvents()
        for _ in range(SEEKS):
            n = rng.randrange(len(expected))
            window.switch_frame(n)
            app.processEvents()
            pictures += 1
            wrong += not np.array_equal(shown(window), expected[n])
    if len(sys.argv) > 3:
        window.grab().save(sys.argv[3])
    print(pictures, "pictures,", wrong, "wrong", flush=True)


class App(QApplication):  # type: ignore[misc]
    """Ends when it has been driven."""

    def exec(self) -> int:
        drive(self)
        return 0


init.QApplication = App
init.main([sys.argv[1]], no_exit=True)
