"""Triplet samplers by name: the table alone, so that listing them costs no import; `soundssl.triplets` draws them."""

SAMPLERS = {
    "noise": "the positive is the anchor with Gaussian noise",
    "translation": "the positive is the anchor shifted in time and frequency",
    "mixing": "the positive is the anchor with the negative mixed into it",
    "proximity": "the positive is another window of the anchor's recording",
    "supervised": "the positive shares a class with the anchor (needs --labels)",
    "joint": "noise, translation, mixing and proximity in equal numbers",
}
