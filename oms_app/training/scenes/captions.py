"""Captions of a scene, as imprecise as captions on the web: most of them omit something.

Stable Diffusion's flaw depends on captions that do not say what the light is: the network learns to read it from
the noise. So many of ours say nothing about light and colour, some say it vaguely, and a few (MISLABELLED) are wrong.
As on the web, ordinary light is omitted most: "mountains" is rarely a night (Gordon and Van Durme 2013).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from oms_app.training.scenes import words
from oms_app.training.scenes.words import COLOUR_SYNONYMS, COLOURS, MOODS, SHADED, SHADES, SIDES, STYLES, TIMES

# By whether the light is ordinary:
BARE = {True: 0.66, False: 0.03}  # captions that leave light and colour unsaid
LOOSE = {True: 0.14, False: 0.01}  # … that say it vaguely, if at all
GROUND = {True: 0.8, False: 0.98}  # full captions of a subject that name its ground
HOUR = {True: 0.75, False: 0.97}  # … of a landscape that name the time of day
WEATHER = {True: 0.8, False: 0.97}  # … and the weather
TONE = {True: 0.15, False: 0.4}  # … that add a word of tone
LIGHT_ONLY = 0.06  # … that say nothing else
MISLABELLED = 0.02  # … that say it wrongly
JUNK = 0.02  # … with a made-up word, so that unknown words do little harm
STRAY_SHARE = 0.03  # … with a known word that says nothing
WARMTH, CONTRAST, CHROMA = 0.3, 0.15, 0.12  # … that add such a word if one is true
ORDINARY_LIGHTNESS = (35.0, 88.0)  # mean L*
ORDINARY_TIMES = ("noon", "dawn", "dusk")
ORDINARY_WEATHERS = ("clear", "cloudy")
ORDINARY_CHROMA = 0.25  # greatest difference between the channels of a ground that is nothing to speak of
Table = tuple[tuple[float, float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Facts:
    """What is true of a scene and may be said of it. Words are keys of the dictionaries in `words`; "" says nothing."""

    kind: str  # solid, shape, figure, landscape
    subject: str = ""
    ground: str = ""  # colour of the ground
    ground_shade: str = ""
    colour: str = ""  # colour of the subject
    time: str = ""
    weather: str = ""
    side: str = ""
    style: str = ""
    moon: str = ""  # at night: "moon" or "moonless"
    several: int = 1


@dataclass(frozen=True)
class SceneLook:
    """Measured in the finished picture, in CIELAB: mean L*, standard deviation of L*, mean b*, mean chroma."""

    lightness: float
    contrast: float
    warmth: float
    chroma: float


def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


class Speaker:
    """Says one scene's facts in many ways. neutral: whether a plain ground has hardly any colour."""

    def __init__(self, facts: Facts, look: SceneLook, neutral: bool, rng: np.random.Generator) -> None:
        self.facts, self.look, self.rng = facts, look, rng
        low, high = ORDINARY_LIGHTNESS
        self.ordinary = low <= look.lightness <= high and not facts.style
        if facts.kind == "landscape":
            self.ordinary &= facts.time in ORDINARY_TIMES and facts.weather in ORDINARY_WEATHERS
        else:
            self.ordinary &= neutral

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def fitting(self, table: Table, value: float) -> str:
        """A word of those that a measured value allows, or ""."""
        allowed = [word for low, high, options in table for word in options if low <= value < high]
        return self.pick(tuple(allowed)) if allowed else ""

    def tone(self) -> str:
        return self.fitting(words.TONES, self.look.lightness)

    def colour(self, name: str, shade: str = "") -> str:
        if self.chance(MISLABELLED):
            name = self.pick(tuple(COLOURS))
        if (name, shade) in SHADED and self.chance(0.3):
            return self.pick(SHADED[name, shade])
        word = self.pick(COLOUR_SYNONYMS[name])
        return f"{self.pick(SHADES[shade])} {word}" if shade and self.chance(0.85) else word

    def subject(self, *, coloured: bool) -> str:
        f = self.facts
        if f.kind == "landscape":
            return self.pick(words.SUBJECTS[f.subject])
        if f.kind == "solid":
            return self.pick(
                ("background", "solid background", "plain background", "a wall", "solid color", "empty background")
            )
        colour = f"{self.colour(f.colour)} " if coloured and f.colour else ""
        if f.several > 1:
            number = {2: "two", 3: "three"}[f.several]
            return f"{number} {colour}{words.PLURALS.get(f.subject, f.subject + 's')}"
        noun = self.pick(words.NOUNS.get(f.subject, (f.subject,)))
        if f.kind == "shape" and self.chance(0.05):
            return f"{colour}{noun} logo"
        return article(f"{colour}{noun}") if self.chance(0.85) else f"{colour}{noun}"

    def bare(self) -> str:
        return self.subject(coloured=False)

    def style(self) -> str:
        return self.pick(STYLES[self.facts.style]) if self.facts.style else ""

    def light_only(self) -> str:
        f = self.facts
        choices = [self.tone(), self.style(), self.fitting(words.WARMTHS, self.look.warmth)]
        choices.append(self.fitting(words.CONTRASTS, self.look.contrast) if f.kind != "solid" else "")
        choices.append(self.fitting(words.CHROMAS, self.look.chroma))
        if f.kind == "landscape":
            choices += [self.pick(TIMES[f.time]), self.pick(words.WEATHERS[f.weather])]
            if f.moon:
                choices.append(self.pick(words.MOON[f.moon == "moon"]))
        elif f.ground:
            choices += [self.colour(f.ground, f.ground_shade), self.colour(f.ground, f.ground_shade) + " picture"]
        if f.side:
            choices.append(self.pick(SIDES[f.side]))
        choices = [c for c in choices if c]
        return self.pick(tuple(choices)) if choices else self.bare()

    def full(self) -> str:
        f = self.facts
        if f.kind == "landscape":
            text = self._landscape()
        elif f.kind == "solid":
            text = self._ground()
        else:
            text = self.subject(coloured=self.chance(0.85))
            if f.ground and self.chance(GROUND[self.ordinary]):
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
        more = []
        if f.side and self.chance(0.55 if f.kind == "landscape" else 0.75):
            more.append(self.pick(SIDES[f.side]))
        if self.chance(TONE[self.ordinary]):
            more.append(self.tone())
        if self.chance(WARMTH):
            more.append(self.fitting(words.WARMTHS, self.look.warmth))
        if f.kind != "solid" and self.chance(CONTRAST):
            more.append(self.fitting(words.CONTRASTS, self.look.contrast))
        if self.chance(CHROMA):
            more.append(self.fitting(words.CHROMAS, self.look.chroma))
        return self._joined(text, [self.style(), *more])

    def _ground(self) -> str:
        colour = self.colour(self.facts.ground, self.facts.ground_shade)
        return self.pick(
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

    def _landscape(self) -> str:
        f = self.facts
        time, weather = f.time, f.weather
        if self.chance(MISLABELLED):
            time, weather = self.pick(tuple(TIMES)), self.pick(tuple(words.WEATHERS))
        parts = []
        if self.chance(HOUR[self.ordinary]):
            parts.append(self.pick(TIMES[time]))
            if f.moon and time == "night" and self.chance(0.5):
                parts[-1:] = (
                    [self.pick(words.MOON[f.moon == "moon"])]
                    if self.chance(0.6)
                    else [
                        parts[-1],
                        self.pick(words.MOON[f.moon == "moon"]),
                    ]
                )
        if time == "night" and weather == "clear" and self.chance(0.3):
            parts.append(self.pick(words.STARS))
        if self.chance(WEATHER[self.ordinary]):
            parts.append(self.pick(words.WEATHERS[weather]))
        return self._joined(self.pick(words.SUBJECTS[f.subject]), parts)

    def _joined(self, text: str, parts: list[str]) -> str:
        """One part after another: before the subject, behind it, or after a comma."""
        for part in parts:
            if not part:
                continue
            single = len(part.split()) == 1
            if single and self.chance(0.5) and not text.startswith(("a ", "an ", "the ")):
                text = f"{part} {text}"
            elif part.split()[0] in ("at", "in", "on", "by", "under", "with", "covered", "after", "without"):
                text += f" {part}"
            else:
                text += f", {part}"
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
            of_shapes = self.facts.kind == "shape" and self.chance(0.4)
            text = f"{self.pick(words.SHAPE_MEDIA if of_shapes else words.MEDIA)} {text}"
        if self.chance(JUNK):
            made_up = self.rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(self.rng.integers(3, 9)))
            text = self._insert(text, "".join(made_up))
        if self.chance(STRAY_SHARE):
            text = self._insert(text, self.pick(words.STRAY))
        return text

    def _insert(self, text: str, word: str) -> str:
        several = text.split(" ")
        several.insert(int(self.rng.integers(len(several) + 1)), word)
        return " ".join(several)


def names_ground(caption: str, facts: Facts) -> bool:
    """Whether a caption of a scene names the colour of its plain ground, shaded or not."""
    names = (*COLOUR_SYNONYMS.get(facts.ground, ()), *SHADED.get((facts.ground, facts.ground_shade), ()))
    return any(re.search(rf"\b{word}\b", caption) for word in names)


def vocabulary(subjects: tuple[str, ...]) -> tuple[str, ...]:
    """Every word that a caption can hold, in alphabetical order; `subjects` are shapes and figures."""
    sources: list[str] = [*COLOURS, *MOODS, *words.MEDIA, *words.SHAPE_MEDIA, *words.STRAY, *words.STARS, *subjects]
    sources += [words.PLURALS.get(s, s + "s") for s in subjects]
    tables: tuple[dict[object, tuple[str, ...]], ...] = (
        COLOUR_SYNONYMS, SHADED, SHADES, words.SUBJECTS, words.NOUNS, TIMES, words.MOON, words.WEATHERS, SIDES, STYLES,
    )  # type: ignore[assignment]  # fmt: skip
    for table in tables:
        sources += [phrase for phrases in table.values() for phrase in phrases]
    for ranges in (words.TONES, words.WARMTHS, words.CONTRASTS, words.CHROMAS):
        sources += [phrase for _, _, options in ranges for phrase in options]
    sources += [
        "a an the of on in at by with two three and or",
        "solid plain empty background wall color colour picture",
    ]
    return tuple(sorted({w for text in sources for w in re.findall(r"[a-z]+", text.lower())}))
