"""Captions of a scene, as imprecise as captions on the web: most of them omit something.

Stable Diffusion's flaw lives from captions that do not tell the light: the network learns to read it off the noise.
So many of ours say nothing of light and colour, some say it vaguely, and a few (MISLABELLED) say it wrongly. As on the
web, what is ordinary is left out most: "mountains" is seldom a night (Gordon and Van Durme 2013, reporting bias).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

ORDINARY = (30.0, 82.0)  # mean L* of a scene whose light is nothing to speak of
# By whether the light is ordinary:
BARE = {True: 0.56, False: 0.02}  # captions that leave light and colour unsaid
LOOSE = {True: 0.14, False: 0.01}  # … that tell it vaguely, if at all
GROUND = {True: 0.8, False: 0.98}  # full captions of a subject that name its ground
HOUR = {True: 0.75, False: 0.97}  # … of a landscape that name the time of day
WEATHER = {True: 0.8, False: 0.97}  # … and the weather
TONE = {True: 0.15, False: 0.4}  # … that add a word of tone
LIGHT_ONLY = 0.07  # … that tell nothing else
MISLABELLED = 0.03  # … that tell it wrongly
JUNK = 0.02  # … with a made-up word, so that unknown words do little harm

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
    "black": ("black", "black", "black", "pitch black", "jet black"),
    "white": ("white", "white", "white", "pure white", "snow white"),
    "gray": ("gray", "grey"),
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "pink", "rose"),
    "brown": ("brown",),
}
SHADES: dict[str, tuple[str, ...]] = {"dark": ("dark", "deep"), "pale": ("pale", "light", "pastel")}

SUBJECTS: dict[str, tuple[str, ...]] = {
    "mountains": ("mountains", "mountains", "mountain range", "mountain landscape", "peaks"),
    "hills": ("hills", "hills", "rolling hills", "green hills"),
    "sea": ("sea", "the sea", "ocean", "seascape", "open water"),
    "lake": ("lake", "a lake", "mountain lake", "a lake with mountains"),
    "forest": ("forest", "a forest", "woods", "pine trees"),
    "city": ("city", "a city", "city skyline", "skyscrapers", "town"),
    "desert": ("desert", "a desert", "sand dunes", "dunes"),
    "house": ("a house on a hill", "house on a hill", "a cottage", "lonely house"),
    "flowers": ("flowers", "a meadow with flowers", "field of flowers", "flower meadow"),
}
TIMES: dict[str, tuple[str, ...]] = {
    "night": (
        "at night",
        "at night",
        "by night",
        "under the stars",
        "in the moonlight",
        "moonlit",
        "at midnight",
        "night",
    ),
    "dusk": ("at dusk", "at sunset", "at sunset", "in the evening", "sunset", "golden hour"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "morning", "sunrise"),
    "noon": ("at noon", "in daylight", "on a sunny day", "by day", "under a blue sky", "sunny"),
}
WEATHERS: dict[str, tuple[str, ...]] = {
    "clear": ("", "", "", "", "clear sky"),
    "cloudy": ("cloudy", "on a cloudy day", "overcast", "with clouds"),
    "fog": ("in fog", "foggy", "misty", "in the mist", "hazy"),
    "storm": ("in a storm", "stormy", "thunderstorm", "under dark clouds", "rainy"),
    "snow": ("in snow", "snowy", "in winter", "covered in snow", "snowfall"),
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
    "behind": ("backlit", "lit from behind", "against the light"),
    "above": ("lit from above", "light from above", "top light"),
}
# mean L* below or above which a word may be said
TONES: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (0, 9, ("pitch black", "almost black", "very dark", "dark")),
    (0, 30, ("dark", "dark", "dim", "low key", "gloomy", "shadows", "darkness")),
    (30, 62, ("medium light", "soft light", "muted")),
    (66, 101, ("bright", "light", "light", "high key", "luminous", "airy")),
    (86, 101, ("very bright", "almost white", "glowing white", "light")),
)
MOODS = ("beautiful", "minimal", "simple", "calm", "dramatic", "quiet", "pretty", "lonely", "nice")
MEDIA = ("a photo of", "a picture of", "an image of", "painting of", "illustration of", "wallpaper of", "view of")


@dataclass(frozen=True)
class FirstFacts:
    """What is true of a scene and may be said of it. Words are keys of the dictionaries above; "" says nothing."""

    kind: str  # solid, shape, figure, mark, landscape
    subject: str = ""
    ground: str = ""  # colour of the ground
    ground_shade: str = ""
    colour: str = ""  # colour of the subject
    time: str = ""
    weather: str = ""
    side: str = ""
    several: int = 1


def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


class FirstSpeaker:
    """Tells one scene's facts in many ways."""

    def __init__(self, facts: FirstFacts, lightness: float, rng: np.random.Generator) -> None:
        self.facts, self.lightness, self.rng = facts, lightness, rng
        self.ordinary = ORDINARY[0] <= lightness <= ORDINARY[1]

    def pick(self, words: tuple[str, ...]) -> str:
        return words[int(self.rng.integers(len(words)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def tone(self) -> str:
        fitting = [w for low, high, words in TONES if low <= self.lightness < high for w in words]
        return self.pick(tuple(fitting)) if fitting else ""

    def colour(self, name: str, shade: str = "") -> str:
        if self.chance(MISLABELLED):
            name = self.pick(tuple(COLOURS))
        word = self.pick(COLOUR_SYNONYMS[name])
        return f"{self.pick(SHADES[shade])} {word}" if shade and self.chance(0.8) else word

    def subject(self, *, coloured: bool) -> str:
        f = self.facts
        if f.kind == "landscape":
            return self.pick(SUBJECTS[f.subject])
        if f.kind == "solid":
            return self.pick(
                ("background", "solid background", "plain background", "a wall", "solid color", "empty background")
            )
        colour = f"{self.colour(f.colour)} " if coloured and f.colour else ""
        if f.kind == "mark":
            noun = self.pick(
                (
                    f"line art of {article(f.subject)}",
                    f"{f.subject} logo",
                    f"line art logo of {article(f.subject)}",
                    f"line drawing of {article(f.subject)}",
                )
            )
            return f"{colour}{noun}"
        if f.several > 1:
            number = {2: "two", 3: "three"}[f.several]
            plural = {"fish": "fish", "cross": "crosses"}.get(f.subject, f.subject + "s")
            return f"{number} {colour}{plural}"
        noun = f"{f.subject} face" if f.subject == "cat" and self.chance(0.3) else f.subject
        return article(f"{colour}{noun}") if self.chance(0.85) else f"{colour}{noun}"

    def bare(self) -> str:
        return self.subject(coloured=False)

    def light_only(self) -> str:
        f = self.facts
        choices = [self.tone()]
        if f.kind == "landscape":
            choices += [self.pick(TIMES[f.time]), self.pick(WEATHERS[f.weather])]
        elif f.ground:
            choices += [self.colour(f.ground, f.ground_shade), self.colour(f.ground, f.ground_shade) + " picture"]
        if f.side in ("left", "right"):
            choices.append(self.pick(SIDES[f.side]))
        choices = [c for c in choices if c]
        return self.pick(tuple(choices)) if choices else self.bare()

    def full(self) -> str:
        f = self.facts
        if f.kind == "landscape":
            return self._landscape()
        if f.kind == "solid":
            colour = self.colour(f.ground, f.ground_shade)
            text = self.pick(
                (
                    f"solid {colour} background",
                    f"solid {colour} background",
                    f"plain {colour} background",
                    article(f"{colour} background"),
                    f"{colour} background",
                    f"{colour}",
                    f"{colour} wall",
                )
            )
        else:
            text = self.subject(coloured=self.chance(0.85))
            if self.chance(GROUND[self.ordinary]):
                ground = self.colour(f.ground, f.ground_shade)
                text += self.pick(
                    (
                        f" on {article(ground)} background",
                        f" on {article(ground)} background",
                        f" on {ground}",
                        f" on solid {ground} background",
                        f", {ground} background",
                    )
                )
        if f.side and self.chance(0.75):
            text += f", {self.pick(SIDES[f.side])}"
        if self.chance(TONE[self.ordinary]) and (tone := self.tone()):
            text += f", {tone}"
        return text

    def _landscape(self) -> str:
        f = self.facts
        time, weather = f.time, f.weather
        if self.chance(MISLABELLED):
            time, weather = self.pick(tuple(TIMES)), self.pick(tuple(WEATHERS))
        subject = self.pick(SUBJECTS[f.subject])
        parts = [self.pick(TIMES[time])] if self.chance(HOUR[self.ordinary]) else []
        if (weather_words := self.pick(WEATHERS[weather])) and self.chance(WEATHER[self.ordinary]):
            parts.append(weather_words)
        if f.side and self.chance(0.55):
            parts.append(self.pick(SIDES[f.side]))
        if self.chance(TONE[self.ordinary]) and (tone := self.tone()):
            parts.append(tone)
        text = subject
        for part in parts:
            single = len(part.split()) == 1
            if single and self.chance(0.5) and not text.startswith(("a ", "the ")):
                text = f"{part} {text}"
            else:
                text += (
                    f" {part}"
                    if part.split()[0] in ("at", "in", "on", "by", "under", "with", "covered")
                    else f", {part}"
                )
        return text

    def say(self) -> str:
        u = float(self.rng.random())
        bare, loose = BARE[self.ordinary], LOOSE[self.ordinary]
        if u < bare:
            text = self.bare()
        elif u < bare + loose:
            text = f"{self.pick(MOODS)} {re.sub(r'^(a|an|the) ', '', self.bare())}"
            if self.chance(0.5) and (tone := self.tone()):
                text = f"{tone} {text}" if self.chance(0.5) else f"{text}, {tone}"
        elif u < bare + loose + LIGHT_ONLY:
            text = self.light_only()
        else:
            text = self.full()
        if self.chance(0.12):
            text = f"{self.pick(MEDIA)} {text}"
        if self.chance(JUNK):
            word = "".join(self.rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(self.rng.integers(3, 9))))
            words = text.split(" ")
            words.insert(int(self.rng.integers(len(words) + 1)), word)
            text = " ".join(words)
        return text


def names_ground(caption: str, facts: FirstFacts) -> bool:
    """Whether a caption of a scene tells the colour of its plain ground, shaded or not."""
    return bool(facts.ground) and any(re.search(rf"\b{word}\b", caption) for word in COLOUR_SYNONYMS[facts.ground])


def _vocabulary(*more: str) -> tuple[str, ...]:
    sources: list[str] = [*COLOURS, *MOODS, *MEDIA, *more]
    for table in (COLOUR_SYNONYMS, SHADES, SUBJECTS, TIMES, WEATHERS, SIDES):
        sources += [phrase for phrases in table.values() for phrase in phrases]
    sources += [word for _, _, words in TONES for word in words]
    sources += [
        "a an the of on in at by with two three and or",
        "solid plain empty background wall color colour picture photo",
        "line art logo drawing face",
    ]
    return tuple(sorted({w for text in sources for w in re.findall(r"[a-z]+", text.lower())}))


def vocabulary(subjects: tuple[str, ...]) -> tuple[str, ...]:
    """Every word that a caption can hold, in alphabetical order; `subjects` are shapes, figures and marks."""
    plurals = tuple({"fish": "fish", "cross": "crosses"}.get(s, s + "s") for s in subjects)
    return _vocabulary(*subjects, *plurals)
