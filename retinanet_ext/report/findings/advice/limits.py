"""From which numbers on a rule speaks; shares are fractions, gains points of AP."""

FEW = 5
"""Fewer misses, boxes or labels than this are chance."""

WITHOUT_ANCHOR = 0.1  # of the misses
UNSEEN = 0.3  # of the misses
UNSURE = 0.6  # of the misses that have a right box with a low score
UNSURE_OBJECTS = 0.2  # of the objects that these are
LOST_IN_TOPK = 0.02  # of the misses
ABOVE_CAP = 0.02  # of the misses
CROWDED = 0.1  # of the misses
SUPPRESSED = 0.1  # of the misses

LOC_GAIN = 8.0  # a RetinaNet on COCO loses 6 to 7 by loose boxes
CLS_GAIN = 5.0  # 3 to 4 there by confused classes
NAMING_GAP = 5.0  # AP without regard to the class, above AP
BKG_GAIN = 5.0  # 3 to 4 there by boxes on background
DUPE_GAIN = 1.5  # 0.2 there by duplicates
PAIR = 0.2  # of the objects of a class that are taken for one other

MISSING_LABELS = 0.015  # sure boxes on nothing, over the objects
LARGE_BOXES = 0.02  # sure boxes of half a picture, over the pictures
SMALL_SIDE = 32.0  # pixels; COCO's small objects
SMALL_OBJECTS = 20  # so many are needed to speak of them
SMALL_SHARE = 0.1  # and this share of all objects
SMALL_GAP = 0.2  # of recall, between small and other objects

RISE = 2.0  # points of AP within the last quarter of a training
FALL = 0.03  # of the validation loss within the last quarter
PAST_BEST = 1.0  # points of AP by which the last evaluation is below the best
HARDLY = 10.0  # AP50 of a model that has hardly learned

FEW_OBJECTS = 10  # of a class; below it, its numbers are mostly chance
FEW_IN_ALL = 100  # objects
WIDE = 5.0  # half of the interval of AP, in points
WEAK = 0.5  # AP of a class, over the median of the classes
