"""What travels in parts arrives whole."""

import pytest
from PIL import Image

from groma_training import bases, ship
from groma_training.data.photo import Object, Photo, read_jsonl, write_jsonl


def test_photos_and_bases_arrive(tmp_path, monkeypatch):
    Image.new("RGB", (1024, 768), "teal").save(tmp_path / "a.png")
    write_jsonl([Photo("a", "a.png", 1024, 768, [Object((100, 100, 300, 200), "dog")], captions=["A dog."])],
                tmp_path / "list.jsonl")
    for kind in ("encoder", "decoder"):
        (tmp_path / kind).write_bytes(kind.encode() * 6_000_000)
    monkeypatch.setattr(bases, "fetch", lambda kind: tmp_path / kind)
    parts = ship.write_parts(ship.members({"corpus.jsonl": tmp_path / "list.jsonl"}), tmp_path / "parts", 25)
    assert len(parts) > 2 and all(p.stat().st_size <= 25_000_000 for p in parts)
    assert ship.unpack(parts[1:], tmp_path / "there") == [str(tmp_path / "there" / "bases" / "encoder")]
    assert ship.unpack(parts[:1], tmp_path / "there") == []
    photo, = read_jsonl(tmp_path / "there" / "corpus.jsonl")
    assert (photo.width, photo.height) == (512, 384) and photo.objects[0].box == (50, 50, 150, 100)
    assert Image.open(photo.file).size == (512, 384)
    assert (tmp_path / "there" / "bases" / "decoder").read_bytes() == (tmp_path / "decoder").read_bytes()


def test_broken_slices_are_noticed(tmp_path):
    items = list(ship.sliced("x.bin", b"abcdef" * 10, 20))
    ship.write_parts(items[:2], tmp_path / "parts", 1)
    assert ship.unpack(sorted((tmp_path / "parts").glob("*.tar")), tmp_path / "there") == [str(tmp_path / "there" / "x.bin")]
    bad = [(items[0][0], b"?" * 20), *items[1:]]
    with pytest.raises(ValueError, match="another hash"):
        ship.unpack(ship.write_parts(bad, tmp_path / "bad", 1), tmp_path / "other")
