"""Set-of-Mark: every region gets its number, drawn where it hides little and reads well."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from groma_training.data.photo import Xyxy

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#000075", "#808000")


def draw_marks(image: Image.Image, boxes: Sequence[Xyxy], font_size: int = 16) -> Image.Image:
    """A copy with each box outlined and its index on a dark plate at the first free corner of the box."""
    out = image.convert("RGB").copy()
    pen = ImageDraw.Draw(out)
    font = ImageFont.load_default(font_size)
    plates: list[Xyxy] = []
    for k, box in enumerate(boxes):
        pen.rectangle(box, outline=COLOURS[k % len(COLOURS)], width=2)
    for k, box in enumerate(boxes):
        left, top, right, bottom = pen.textbbox((0, 0), str(k), font=font)
        plate = _place(box, (right - left + 6, bottom - top + 6), out.size, plates)
        plates.append(plate)
        pen.rectangle(plate, fill=COLOURS[k % len(COLOURS)])
        pen.text((plate[0] + 3 - left, plate[1] + 3 - top), str(k), fill="white", font=font)
    return out


def _place(box: Xyxy, size: tuple[float, float], canvas: tuple[int, int], taken: Sequence[Xyxy]) -> Xyxy:
    """The first corner, or else the centre, whose plate overlaps no other; kept inside the picture."""
    (x0, y0, x1, y1), (w, h) = box, size
    options = [(x0, y0), (x1 - w, y0), (x0, y1 - h), (x1 - w, y1 - h), ((x0 + x1 - w) / 2, (y0 + y1 - h) / 2)]
    inside = []
    for x, y in options:
        x, y = min(max(x, 0), canvas[0] - w), min(max(y, 0), canvas[1] - h)
        inside.append((x, y, x + w, y + h))
    for plate in inside:
        if not any(_overlap(plate, other) for other in taken):
            return plate
    return inside[-1]


def _overlap(a: Xyxy, b: Xyxy) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
