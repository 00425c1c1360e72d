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
