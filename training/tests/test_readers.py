"""Every reader on a fixture of two or three entries."""

import itertools
import json
import random

import pytest
from PIL import Image

from groma_training.data import coco, conversations, flickr, referring, visual_genome, voc, yolo
from groma_training.data.entities import entities
from groma_training.data.gather import difference_hash, gather, is_excluded, is_near
from groma_training.data.labels import label_sets
from groma_training.data.mix import endless, shares
from groma_training.data.photo import Object, Photo, PhotoStore, Turn, read_jsonl, write_jsonl

INSTANCES = {
    "categories": [{"id": 7, "name": "dog"}], "licenses": [{"id": 4, "name": "CC BY 2.0"}],
    "images": [{"id": 9, "file_name": "000000000009.png", "width": 40, "height": 30, "license": 4},
               {"id": 10, "file_name": "missing.png", "width": 4, "height": 3}],
    "annotations": [{"id": 1, "image_id": 9, "bbox": [1, 2, 10, 5], "category_id": 7, "iscrowd": 0},
                    {"id": 2, "image_id": 9, "bbox": [0, 0, 0, 5], "category_id": 7, "iscrowd": 0},
                    {"id": 3, "image_id": 9, "bbox": [5, 5, 9, 9], "category_id": 7, "iscrowd": 1}]}


@pytest.fixture
def folder(tmp_path):
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(tmp_path / "000000000009.png")
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    return tmp_path


def test_coco_instances(folder):
    photos = list(coco.read_instances(folder / "instances.json", folder))
    assert [p.id for p in photos] == ["coco-000000000009"] and photos[0].licence == "CC BY 2.0"
    assert photos[0].objects == [Object((1, 2, 11, 7), "dog"), Object((5, 5, 14, 14), "dog", True)]


def test_other_sets_in_cocos_form_have_their_own_categories(folder):
    """Only COCO's own list makes an unboxed person certain not to be there."""
    photo, = coco.read_instances(folder / "instances.json", folder)
    assert photo.label_set == "instances" and label_sets([photo])["instances"] == ("dog",)
    assert label_sets([photo])["coco-80"] == coco.COCO_80
    whole = {**INSTANCES, "categories": [{"id": i + 7, "name": name} for i, name in enumerate(coco.COCO_80)]}
    (folder / "whole.json").write_text(json.dumps(whole))
    assert next(coco.read_instances(folder / "whole.json", folder)).label_set == "coco-80"
    lvis = [{k: v for k, v in i.items() if k != "file_name"} | {"coco_url": f"http://host/{i['file_name']}"}
            for i in INSTANCES["images"]]
    (folder / "lvis.json").write_text(json.dumps({**INSTANCES, "images": lvis}))
    assert [p.id for p in coco.read_instances(folder / "lvis.json", folder)] == ["coco-000000000009"]
    assert coco.coco_id("kangaroo_a") == "kangaroo_a"


def test_coco_captions(folder):
    path = folder / "captions.json"
    path.write_text(json.dumps({"annotations": [{"image_id": 9, "caption": "A  dog.\n"}, {"image_id": 9, "caption": "Dog"}]}))
    assert coco.read_captions(path) == {"coco-000000000009": ["A dog.", "Dog"]}


def test_coco_box_list_finds_crowds(folder):
    small = " ".join(f"{i},0,{i + 2},2,0" for i in range(12))
    (folder / "list.txt").write_text(f"/x/000000000009.jpg {small} 0,0,39,29,0\n/x/000000000001.jpg 0,0,1,1,0\n")
    photo, = coco.read_box_list(folder / "list.txt", {"coco-000000000009": ("f", 40, 30)})
    assert [o.iscrowd for o in photo.objects] == [False] * 12 + [True]


def test_voc_xml_and_list(folder):
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>10</xmax><ymax>12</ymax></bndbox>"
    (folder / "Annotations" / "2007_1.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size>"
        f"<object><name>sofa</name><difficult>0</difficult>{box}</object>"
        f"<object><name>dog</name><difficult>1</difficult>{box}</object></annotation>")
    photo, = voc.read_voc(folder)
    assert photo.id == "voc2012-2007_1"
    assert photo.objects == [Object((1, 2, 10, 12), "couch"), Object((1, 2, 10, 12), "dog", True)]
    (folder / "list.txt").write_text("000000000009.png 2 3 10 12 17 2 3 10 12 11\nnone.png 1 1 2 2 0\n")
    photo, = voc.read_voc_list(folder / "list.txt", folder)
    assert [o.label for o in photo.objects] == ["couch", "dog"] and photo.width == 40


def test_yolo_folder(folder):
    (folder / "000000000009.txt").write_text("1 0.5 0.5 0.5 0.2\n")
    photo, = yolo.read_yolo(folder, folder, ["cat", "dog"], "mine-{stem}")
    assert photo.id == "mine-000000000009" and photo.objects == [Object((10, 12, 30, 18), "dog")]


def test_refcoco(folder):
    refs = [{"ann_id": 1, "split": "val", "sentences": [{"sent": "left dog "}]},
            {"ann_id": 3, "split": "train", "sentences": [{"sent": "dog"}]}]
    (folder / "refs.json").write_text(json.dumps(refs))
    photo, = referring.read_refcoco(folder / "refs.json", folder / "instances.json", folder, "val")
    assert [(p.text, p.boxes) for p in photo.phrases] == [("left dog", [(1, 2, 11, 7)])]


def test_visual_genome(folder):
    Image.new("RGB", (40, 30)).save(folder / "5.jpg")
    (folder / "regions.json").write_text(json.dumps([{"id": 5, "regions": [
        {"x": -2, "y": 1, "width": 10, "height": 50, "phrase": " a  dog"},
        {"x": 60, "y": 1, "width": 3, "height": 3, "phrase": "outside"}]}]))
    (folder / "data.json").write_text(json.dumps([{"image_id": 5, "width": 40, "height": 30}]))
    photo, = visual_genome.read_regions(folder / "regions.json", folder / "data.json", folder)
    assert [(p.text, p.boxes) for p in photo.phrases] == [("a dog", [(0, 1, 8, 30)])]


def test_flickr30k_entities(folder):
    for name in ("Annotations", "Sentences"):
        (folder / name).mkdir()
    (folder / "Annotations" / "77.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size><object><name>3</name><bndbox><xmin>1</xmin>"
        "<ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>")
    (folder / "Sentences" / "77.txt").write_text("[/EN#3/people A man] under [/EN#0/notvisual the sky] .\n")
    photo, = flickr.read_flickr30k(folder, folder)
    assert photo.captions == ["A man under the sky ."]
    assert [(p.text, p.boxes) for p in photo.phrases] == [("A man", [(1, 2, 3, 4)])]
    assert photo.turns[0].answer == "<p>A man</p>[0] under the sky ." and photo.turns[0].boxes == [(1, 2, 3, 4)]


def test_llava(folder):
    (folder / "llava.json").write_text(json.dumps([
        {"id": "a", "image": "000000000009.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]},
        {"id": "text", "conversations": []}]))
    photo, = conversations.read_llava(folder / "llava.json", folder)
    assert photo.turns == [Turn("What?", "A dog.")] and (photo.width, photo.height) == (40, 30)


def test_groma_instruct_round_trip(folder):
    boxes = [(0.0, 0.0, 5.0, 5.0), (1.0, 1.0, 9.0, 9.0)]
    photo = Photo("x", str(folder / "000000000009.png"), 40, 30, turns=[Turn("Who?", "<p>Dogs</p>[0][1] run.", boxes)])
    conversations.write_groma_instruct([photo], folder / "out.json")
    assert "<p>Dogs</p><roi><r0><r1></roi> run." in (folder / "out.json").read_text()
    back, = conversations.read_groma_instruct(folder / "out.json", folder)
    assert back.turns == photo.turns


def test_jsonl_round_trip(folder):
    photo = Photo("x", "000000000009.png", 40, 30, [Object((0, 0, 4, 4), "dog")], captions=["A dog."])
    write_jsonl([photo], folder / "list.jsonl")
    back, = read_jsonl(folder / "list.jsonl")
    assert back.objects == photo.objects and PhotoStore().open(back).size == (40, 30)


def test_gather_leaves_out_what_must_not_be_seen(folder):
    import hashlib

    write_jsonl([Photo("held", "000000000009.png", 40, 30)], folder / "held.jsonl")
    Image.effect_noise((64, 64), 90).convert("RGB").save(folder / "other.png")
    write_jsonl([Photo("same-picture", "000000000009.png", 40, 30), Photo("secret", "other.png", 64, 64),
                 Photo("fine", "other.png", 64, 64), Photo("fine", "other.png", 64, 64)], folder / "all.jsonl")
    secret = hashlib.sha256(b"secret").hexdigest()[:16]
    (folder / "exclude.txt").write_text(secret + "\n")
    photos, tally = gather({"exclude": folder / "exclude.txt", "held_out": folder / "held.jsonl",
                            "source": [{"name": "s", "reader": "jsonl", "path": folder / "all.jsonl"}]})
    assert [p.id for p in photos] == ["fine"]
    assert tally == {("s", "near a held-out photo"): 1, ("s", "excluded"): 1, ("s", "kept"): 1, ("s", "seen before"): 1}
    assert is_excluded("secret", frozenset([secret]))
    image = Image.open(folder / "000000000009.png")
    assert is_near(image.resize((80, 60)), difference_hash(image)[None])


def test_entities_are_phrases_of_categories_with_one_box():
    objects = [Object((0, 0, 5, 5), "dog"), Object((5, 0, 9, 5), "person"), Object((0, 5, 4, 9), "car"),
               Object((4, 5, 8, 9), "car"), Object((1, 1, 3, 3), "cup", True)]
    photo = Photo("a", "a.jpg", 10, 10, objects, exhaustive=True, captions=[
        "A brown dog beside a man and two cars.", "a man with a cup", "The man looks at a car."])
    assert [(p.text, p.boxes) for p in entities(photo)] == [
        ("A brown dog", [(0, 0, 5, 5)]), ("a man", [(5, 0, 9, 5)]), ("The man", [(5, 0, 9, 5)])]
    photo.exhaustive = False
    assert entities(photo) == [], "there may be a second one without a box"


def test_photos_with_more_objects_are_shown_oftener():
    photos = [Photo(str(n), "", 1, 1, [Object((0, 0, 1, 1), "dog")] * n) for n in (0, 1, 4, 16, 99)]
    assert shares(photos, 0.0) == [1.0] * 5
    often = shares(photos, 0.5)
    assert often[0] == often[1] == pytest.approx(often[2] / 2) and often[3] == often[4], "from 15 on none is shown oftener"
    assert sum(often) == pytest.approx(5)
    shown = [p.id for p in itertools.islice(endless(photos, 0.5, random.Random(0)), 2000)]
    assert shown.count("4") / shown.count("1") == pytest.approx(2, rel=0.2)
    assert {*shown[:5]} <= {p.id for p in photos} and shown[:8] != shown[8:16]
    even = [p.id for p in itertools.islice(endless(photos, 0.0, random.Random(0)), 10)]
    assert sorted(even[:5]) == sorted(even[5:]) == sorted(p.id for p in photos)
