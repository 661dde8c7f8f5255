"""The words of captions: colours, subjects, kinds of light, and filler words without meaning."""

from __future__ import annotations

COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "gray": (0.5, 0.5, 0.5),
    "red": (0.86, 0.12, 0.12),
    "orange": (0.97, 0.55, 0.10),
    "yellow": (0.97, 0.86, 0.15),
    "green": (0.13, 0.62, 0.22),
    "teal": (0.10, 0.58, 0.58),
    "blue": (0.12, 0.28, 0.85),
    "purple": (0.50, 0.16, 0.65),
    "pink": (0.96, 0.56, 0.72),
    "brown": (0.45, 0.27, 0.12),
}
COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "black": ("black", "black", "black", "black", "pitch black", "jet black", "ebony"),
    "white": ("white", "white", "white", "white", "pure white", "snow white"),
    "gray": ("gray", "grey"),
    "red": ("red", "red", "red", "crimson", "scarlet", "ruby"),
    "orange": ("orange", "orange", "orange", "amber"),
    "yellow": ("yellow", "yellow", "yellow", "golden", "gold", "lemon"),
    "green": ("green", "green", "green", "emerald"),
    "teal": ("teal", "teal", "turquoise", "cyan", "aqua"),
    "blue": ("blue", "blue", "blue", "royal blue", "cobalt"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "pink", "rose", "magenta"),
    "brown": ("brown", "brown", "chocolate"),
}
# Words for a colour and its shade in one.
SHADED: dict[tuple[str, str], tuple[str, ...]] = {
    ("gray", "dark"): ("charcoal", "slate"),
    ("gray", "pale"): ("silver", "ash gray"),
    ("red", "dark"): ("maroon", "burgundy", "blood red"),
    ("red", "pale"): ("salmon", "coral"),
    ("orange", "dark"): ("rust",),
    ("orange", "pale"): ("peach", "apricot"),
    ("yellow", "dark"): ("olive", "ochre"),
    ("yellow", "pale"): ("cream", "ivory", "vanilla"),
    ("green", "dark"): ("forest green",),
    ("green", "pale"): ("mint", "mint green"),
    ("blue", "dark"): ("navy", "navy blue", "midnight blue"),
    ("blue", "pale"): ("sky blue", "baby blue"),
    ("purple", "dark"): ("indigo", "plum"),
    ("purple", "pale"): ("lavender", "lilac"),
    ("pink", "pale"): ("blush",),
    ("brown", "pale"): ("beige", "tan"),
}
SHADES: dict[str, tuple[str, ...]] = {"dark": ("dark", "dark", "deep"), "pale": ("pale", "light", "pastel")}

SUBJECTS: dict[str, tuple[str, ...]] = {
    "mountains": ("mountains", "mountains", "mountain range", "mountain landscape", "peaks", "a mountain", "alps"),
    "hills": ("hills", "hills", "rolling hills", "green hills", "countryside", "a valley"),
    "sea": ("sea", "the sea", "ocean", "seascape", "open water", "sea with waves"),
    "lake": ("lake", "a lake", "mountain lake", "a lake with mountains"),
    "forest": ("forest", "a forest", "woods", "pine trees", "fir trees"),
    "city": ("city", "a city", "city skyline", "skyscrapers", "town", "buildings"),
    "desert": ("desert", "a desert", "sand dunes", "dunes"),
    "house": ("a house on a hill", "house on a hill", "a cottage", "lonely house", "a cabin"),
    "flowers": ("flowers", "a meadow with flowers", "field of flowers", "flower meadow", "a garden"),
}
NOUNS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "sphere"),
    "apple": ("apple", "apple", "fruit"),
    "pear": ("pear", "pear", "fruit"),
    "vase": ("vase", "vase", "pot"),
    "boat": ("boat", "sailing boat", "ship"),
    "cat": ("cat", "cat", "cat face"),
    "crescent": ("crescent", "crescent", "crescent moon"),
    "circle": ("circle", "circle", "disc", "dot"),
    "hexagon": ("hexagon",),
}
PLURALS = {"fish": "fish", "cross": "crosses"}
TIMES: dict[str, tuple[str, ...]] = {
    "night": ("at night", "at night", "by night", "at midnight", "night", "night sky", "nighttime"),
    "twilight": ("at twilight", "twilight", "blue hour", "after sunset", "at nightfall"),
    "dusk": ("at dusk", "at sunset", "at sunset", "in the evening", "sunset", "golden hour", "evening light"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "morning", "sunrise", "morning light", "daybreak"),
    "noon": ("at noon", "in daylight", "on a sunny day", "by day", "under a blue sky", "sunny", "midday", "sunlit"),
}
# At night, by whether there is a moon:
MOON: dict[bool, tuple[str, ...]] = {
    True: ("moonlit", "in the moonlight", "under the moon", "full moon", "moonlight"),
    False: ("moonless", "on a moonless night", "dark night", "in darkness", "without a moon"),
}
STARS = ("under the stars", "starry", "starlight", "starry sky")
WEATHERS: dict[str, tuple[str, ...]] = {
    "clear": ("", "", "", "", "clear sky", "cloudless"),
    "cloudy": ("cloudy", "on a cloudy day", "overcast", "with clouds"),
    "fog": ("in fog", "foggy", "misty", "in the mist", "hazy", "haze"),
    "storm": ("in a storm", "stormy", "thunderstorm", "under dark clouds", "rainy", "rain", "lightning"),
    "snow": ("in snow", "snowy", "in winter", "covered in snow", "snowfall", "frosty"),
}
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("lit from the left", "light from the left", "left-lit", "sun on the left", "side light from the left"),
    "right": (
        "lit from the right",
        "light from the right",
        "right-lit",
        "sun on the right",
        "side light from the right",
    ),
    "behind": ("backlit", "lit from behind", "against the light", "backlight", "rim light"),
    "above": ("lit from above", "light from above", "top light", "overhead light"),
}
STYLES: dict[str, tuple[str, ...]] = {
    "neon": ("neon", "neon light", "neon glow", "glowing", "glowing in the dark", "neon sign"),
    "noir": ("noir", "film noir", "monochrome", "grayscale", "colorless"),
    "candle": ("by candlelight", "candlelit", "candlelight", "by firelight", "by lamplight", "lamplight"),
    "spotlight": ("in a spotlight", "spotlit", "spotlight", "stage light"),
    "silhouette": ("silhouette", "in silhouette", "silhouetted"),
}
# mean L* below or above which a word may be said
TONES: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (0, 9, ("pitch black", "almost black", "very dark", "dark", "pitch dark", "lightless", "blackness")),
    (
        0,
        30,
        (
            *(
                "dark",
                "dark",
                "dark",
                "dim",
                "low key",
                "gloomy",
                "shadows",
                "darkness",
                "shadow",
                "in shadow",
                "darker",
            ),
            *("shadowy", "underexposed", "murky", "dimly lit", "shade", "gloom", "dusky"),
        ),
    ),
    (30, 62, ("medium light", "soft light", "muted", "subdued", "ambient light", "even light")),
    (
        66,
        101,
        (
            *("bright", "bright", "light", "light", "high key", "luminous", "airy", "brighter", "lighter", "well lit"),
            *("brightly lit", "radiant", "overexposed", "shining", "studio light", "full light"),
        ),
    ),
    (86, 101, ("very bright", "almost white", "glowing white", "light", "dazzling", "blinding light")),
)
# mean b* of CIELAB below or above which a word may be said
WARMTHS: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (11, 200, ("warm light", "warm", "warm", "warm tones", "warm colors", "warm glow", "warmer")),
    (-200, -11, ("cool light", "cool", "cold", "cold light", "cool tones", "cold colors", "icy", "cooler", "chilly")),
)
# standard deviation of L*
CONTRASTS: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (24, 200, ("high contrast", "strong contrast", "contrast", "hard light", "bold", "harsh light")),
    (0, 8, ("low contrast", "soft contrast", "flat light", "faded", "diffuse light")),
)
# mean chroma of CIELAB
CHROMAS: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (45, 300, ("vivid", "vibrant", "colorful", "saturated", "vivid colors")),
    (0, 6, ("colorless", "desaturated", "neutral")),
)
MOODS = (
    *(
        "beautiful",
        "minimal",
        "simple",
        "calm",
        "dramatic",
        "quiet",
        "pretty",
        "lonely",
        "nice",
        "peaceful",
        "cinematic",
    ),
    *("moody", "serene", "lovely", "elegant", "mysterious"),
)
MEDIA = (
    *("a photo of", "a picture of", "an image of", "painting of", "illustration of", "wallpaper of", "view of"),
    *("photograph of", "scene with", "artwork of", "render of"),
)
SHAPE_MEDIA = ("logo of", "line art of", "drawing of", "icon of", "line drawing of", "sign with")
# Known though no scene is named by them; they stand in captions by chance, so that they do little harm.
STRAY = (
    *("leaf", "leafs", "wave", "suns", "logo", "face", "art", "line", "drawing", "photography", "detailed", "style"),
    *("quality", "mood", "atmosphere", "lighting"),
)
