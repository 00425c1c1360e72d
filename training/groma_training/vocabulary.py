"""Words: everyday nouns for text-only scenes, plurals, and which words of captions mean which category."""

from __future__ import annotations

COLOURS = tuple("red blue green yellow black white brown orange pink purple gray".split())
NOUNS = tuple(word.replace("_", " ") for word in """
person man woman boy girl child baby bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant
stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie
suitcase frisbee skis snowboard ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass
cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant
bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book
clock vase scissors teddy_bear hair_drier toothbrush tree house building window door flower street road fence wall lamp
mirror pillow curtain shelf cabinet hat shirt jacket shoe glasses watch helmet bag box basket bucket rope flag sign pole
wheel tire duck goose chicken rabbit squirrel monkey lion tiger wolf fox deer pig goat camel frog turtle fish shark whale
crab butterfly bee spider snake lizard penguin owl eagle parrot pigeon swan mountain river lake bridge tower church
castle tent ladder camera phone screen guitar piano drum violin trumpet bread cheese egg tomato potato onion pepper lemon
grape strawberry melon pineapple mushroom salad soup plate pan pot kettle coffee_cup candle towel soap brush comb pen
pencil paper desk drawer sofa carpet rug blanket ship canoe tractor van taxi ambulance helicopter rocket scooter wagon
cart statue fountain player soldier doctor nurse chef bride groom crowd hand face head leg arm
""".split())
NOUNS = tuple(dict.fromkeys(NOUNS))

# Head words of captions and phrases -> category. Used to tie captions to boxes and to judge cited phrases; a word that
# is neither here nor a category's own name stays unmapped, and the evaluation tells how many did.
SYNONYMS = {
    "person": "man woman boy girl child kid baby toddler lady guy gentleman male female people men women children kids boys "
    "girls adult player skier surfer skateboarder snowboarder batter catcher pitcher umpire rider cyclist biker "
    "motorcyclist pedestrian worker chef cook officer policeman fireman soldier couple crowd group family student bride "
    "groom father mother son daughter friend friends fan spectator athlete swimmer someone",
    "bicycle": "bike", "car": "vehicle sedan suv taxi cab", "motorcycle": "motorbike moped scooter",
    "airplane": "plane jet aircraft airliner jetliner", "bus": "buses trolley", "train": "locomotive engine tram subway",
    "truck": "pickup van lorry", "boat": "ship canoe kayak sailboat yacht ferry raft", "traffic light": "stoplight signal",
    "fire hydrant": "hydrant", "stop sign": "stopsign", "parking meter": "meter", "bird": "duck goose seagull pigeon owl "
    "parrot eagle swan chicken penguin", "cat": "kitten kitty", "dog": "puppy pup hound", "horse": "pony foal",
    "sheep": "lamb ram goat", "cow": "bull cattle calf ox steer", "bear": "bears cub", "backpack": "rucksack bookbag",
    "umbrella": "parasol",
    "handbag": "purse bag", "tie": "necktie", "suitcase": "luggage", "frisbee": "disc", "skis": "ski", "sports ball": "ball "
    "baseball football basketball soccerball", "baseball bat": "bat", "baseball glove": "glove mitt", "surfboard": "board",
    "tennis racket": "racket racquet", "wine glass": "wineglass goblet", "cup": "mug", "bowl": "bowls", "sandwich": "burger "
    "hamburger sub", "hot dog": "hotdog", "donut": "doughnut pastry", "cake": "cupcake", "couch": "sofa loveseat",
    "potted plant": "plant houseplant", "dining table": "table", "toilet": "urinal", "tv": "television monitor screen",
    "laptop": "computer notebook", "mouse": "mice", "remote": "controller wiimote", "cell phone": "phone cellphone smartphone",
    "oven": "stove", "refrigerator": "fridge freezer", "teddy bear": "teddy", "hair drier": "hairdryer blowdryer",
    "vase": "vases", "knife": "knives",
}
WORD_TO_CATEGORY = {word: category for category, words in SYNONYMS.items() for word in words.split()}

IRREGULAR_PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice",
                     "knife": "knives", "wine glass": "wine glasses"}
SAME_IN_PLURAL = frozenset("sheep fish skis scissors glasses broccoli deer".split())


def plural(noun: str) -> str:
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun in SAME_IN_PLURAL:
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def category_of(phrase: str, categories: frozenset[str] | set[str]) -> str | None:
    """The category that a noun phrase's head means: "the two young men on the left" -> "person".

    The head is the last word that maps to a category before the first preposition; two-word categories win.
    """
    words = [w.strip(".,;:!?'\"").lower() for w in phrase.split()]
    for i, word in enumerate(words):
        if i and word in PREPOSITIONS:
            words = words[:i]
            break
    for end in range(len(words), 0, -1):
        for start in (end - 2, end - 1):
            if start < 0:
                continue
            found = _as_category(" ".join(words[start:end]), categories)
            if found:
                return found
    return None


PREPOSITIONS = frozenset("of in on at with near beside behind under above below by from next to holding wearing riding "
                         "sitting standing walking that who which and".split()) - {"of"}


def _as_category(word: str, categories: frozenset[str] | set[str]) -> str | None:
    singulars = [word]
    if word.endswith("ies"):
        singulars.append(word[:-3] + "y")
    if word.endswith("es"):
        singulars.append(word[:-2])
    if word.endswith("s"):
        singulars.append(word[:-1])
    for w in singulars:
        if w in categories:
            return w
        if WORD_TO_CATEGORY.get(w) in categories:
            return WORD_TO_CATEGORY[w]
    return "person" if word == "people" and "person" in categories else None
