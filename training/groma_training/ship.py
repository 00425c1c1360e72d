"""Takes photos and bases to a machine that only small transfers reach, and results back.

    python -m groma_training.ship pack --photos corpus.jsonl --held-out heldout.jsonl --out parts/ [--part-mb 60]
    python -m groma_training.ship unpack --parts parts/ --out $GROMA_CACHE
    python -m groma_training.ship split --file checkpoint.pt --out parts/ --part-mb 15
    python -m groma_training.ship join --parts parts/ --out checkpoint.pt

``pack`` shrinks photos to a longer side of 512 pixels (what crops still need) at JPEG quality 80, about 45 KB each, and
writes tar parts that can travel one by one in any order; the bases' files go in slices.
``unpack`` puts lists with absolute paths and GROMA_BASES-shaped files where training looks for them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from groma_training import bases
from groma_training.data.photo import Object, Photo, PhotoStore, Phrase, Turn, read_jsonl, write_jsonl

LONG_SIDE, QUALITY = 512, 80
MB = 1_000_000


def shrunk(photo: Photo, store: PhotoStore) -> tuple[Photo, bytes]:
    """The photo at most 512 pixels long, its boxes scaled along, and its JPEG bytes."""
    image = store.open(photo)
    scale = min(1.0, LONG_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    sx, sy = size[0] / photo.width, size[1] / photo.height
    out = io.BytesIO()
    image.resize(size).save(out, "JPEG", quality=QUALITY)

    def moved(b: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(round(v * s, 1) for v, s in zip(b, (sx, sy, sx, sy), strict=True))

    small = Photo(photo.id, f"photos/{photo.id}.jpg", *size,
                  [Object(moved(o.box), o.label, o.iscrowd) for o in photo.objects], photo.exhaustive, photo.label_set,
                  photo.captions, [Phrase(p.text, [moved(b) for b in p.boxes], p.kind, p.how) for p in photo.phrases],
                  [Turn(t.question, t.answer, [moved(b) for b in t.boxes]) for t in photo.turns])
    return small, out.getvalue()


def members(lists: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of everything that travels; lists come last, when their photos are known."""
    store, texts = PhotoStore(), {}
    for name, path in lists.items():
        lines = []
        for photo in read_jsonl(path):
            small, data = shrunk(photo, store)
            yield small.file, data
            lines.append(json.dumps(small.to_dict(), ensure_ascii=False))
        texts[name] = "\n".join(lines) + "\n"
    for name, text in texts.items():
        yield f"lists/{name}", text.encode()
    for kind in ("encoder", "decoder"):
        path = bases.fetch(kind)
        yield from sliced(f"bases/{path.name}", path.read_bytes(), 20 * MB)


def sliced(name: str, data: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """A file as numbered slices; the last one carries the whole file's hash in its name."""
    count = -(-len(data) // size)
    digest = hashlib.sha256(data).hexdigest()[:16]
    for i in range(count):
        yield f"{name}.slice-{i:03d}-of-{count:03d}-{digest}", data[i * size : (i + 1) * size]


def write_parts(items: Iterable[tuple[str, bytes]], out: Path, part_mb: float) -> list[Path]:
    """Tar files of at most ``part_mb`` each (a single larger member still gets a part of its own)."""
    out.mkdir(parents=True, exist_ok=True)
    paths, tar, size = [], None, 0
    for name, data in items:
        if tar is None or size + len(data) + 2048 > part_mb * MB:
            if tar is not None:
                tar.close()
            paths.append(out / f"part-{len(paths):03d}.tar")
            tar = tarfile.open(paths[-1], "w")  # noqa: SIM115 - closed when the part is full
            size = 10240
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        size += len(data) + 1024
    if tar is not None:
        tar.close()
    return paths


def unpack(parts: Iterable[Path], out: Path) -> list[str]:
    """Extracts parts, joins complete files and makes the lists' paths absolute; returns what still lacks slices."""
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        with tarfile.open(part) as tar:
            tar.extractall(out, filter="data")
    lacking = []
    files = {(str(p).partition(".slice-")[0], *p.name.split("-")[-2:]) for p in out.rglob("*.slice-*")}
    for name, total, digest in sorted(files):
        count = int(total)
        slices = [Path(f"{name}.slice-{i:03d}-of-{count:03d}-{digest}") for i in range(count)]
        if not all(s.exists() for s in slices):
            lacking.append(name)
            continue
        data = b"".join(s.read_bytes() for s in slices)
        if hashlib.sha256(data).hexdigest()[:16] != digest:
            raise ValueError(f"{name}: the joined slices have another hash than {digest}")
        Path(name).write_bytes(data)
        for s in slices:
            s.unlink()
    for path in out.glob("lists/*.jsonl"):  # kept as they came: photos of a later part must still be found in them
        photos = []
        for line in path.read_text().splitlines():
            photo = Photo.from_dict(json.loads(line))
            photo.file = str((out / photo.file).resolve())
            if Path(photo.file).exists():
                photos.append(photo)
        write_jsonl(photos, out / path.name)
    return lacking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack", "split", "join"))
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--parts", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the folder that is filled")
    parser.add_argument("--part-mb", type=float, default=60)
    options = parser.parse_args()
    if options.what == "pack":
        lists = {"corpus.jsonl": options.photos, "heldout.jsonl": options.held_out}
        paths = write_parts(members({k: v for k, v in lists.items() if v}), options.out, options.part_mb)
        print(f"{len(paths)} parts, {sum(p.stat().st_size for p in paths) / MB:.0f} MB")
    elif options.what == "unpack":
        lacking = unpack(sorted(options.parts.glob("*.tar")), options.out)
        print("complete" if not lacking else f"still lacking slices of {lacking}")
    elif options.what == "split":
        items = sliced(options.file.name, options.file.read_bytes(), int((options.part_mb - 0.1) * MB))
        print(f"{len(write_parts(items, options.out, options.part_mb))} parts")
    else:
        lacking = unpack(sorted(options.parts.glob("*.tar")), options.out)
        print("complete" if not lacking else f"still lacking slices of {lacking}")


if __name__ == "__main__":
    main()
