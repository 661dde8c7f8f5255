"""The history of a folder: its index is rebuilt from the pictures, searched, and shared by processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from test_app import CREATE

from oms_app import GenerateRequest, GenerateResult, StudioError, Variant
from oms_app.engine.service import StudioService
from oms_app.output import png
from oms_app.output.history import FIRST, History, Query, light_of
from oms_app.schema import RAW, ImageResult, ImageStats, Seconds
from oms_app.ui.looks_panel import with_look

STATS = ImageStats(mean=0, lightness=0, p1=0, p99=0, a=0, b=0, histogram=(0,) * 64)
OMS = Variant(name="oms", correction="oms", prompt="Dusk", guidance_scale=2.0)


def keep(folder: Path, prompt: str = "mountains", variants: Sequence[Variant] = (RAW, OMS), seed: int = 5) -> list[str]:
    """Saves a picture of each variant. Returns the names, each a second later than the one before."""
    request = GenerateRequest(prompt=prompt, seed=seed, variants=tuple(variants), width=64, height=64)
    images = tuple(
        ImageResult(variant=v.name, index=0, seed=seed, image=Image.new("RGB", (8, 8), (9, 8, 7)), stats=STATS)
        for v in variants
    )
    seconds = Seconds(**dict.fromkeys(Seconds.model_fields, 0.0))
    saved = png.save(GenerateResult(request=request, seed=seed, images=images, seconds=seconds), folder)
    names = []
    for image in saved.images:
        assert image.path is not None
        names.append(image.path.name)
        keep.time += 1_000_000_000  # type: ignore[attr-defined]
        os.utime(image.path, ns=(keep.time, keep.time))  # type: ignore[attr-defined]
    return names


keep.time = 1_700_000_000_000_000_000  # type: ignore[attr-defined]


def names(history: History, **query: object) -> list[str]:
    return [one.name for one in history.find(Query(**query)).pictures]  # type: ignore[arg-type]


def test_a_pair_is_one_entry_and_the_newest_comes_first(tmp_path: Path) -> None:
    history = History(tmp_path / "new")
    assert history.find().pictures == ()
    raw, oms = keep(history.folder)
    (alone,) = keep(history.folder, variants=(RAW,), seed=6)
    assert names(history) == [alone, oms]
    (picture,) = history.find(Query(), 1, 5).pictures
    assert (picture.prompt, picture.seed, picture.variant, picture.model) == ("mountains", 5, "oms", "lumen")
    assert history.find(Query(), 1, 5).total == 2
    assert history.pair(oms) == (history.folder / raw, history.folder / oms) == history.pair(raw)
    assert history.pair(alone) == (history.folder / alone, None)


def test_search_finds_all_words_in_any_order_and_script(tmp_path: Path) -> None:
    history = History(tmp_path)
    _, night = keep(tmp_path, "Мountains at night, 夜晚的山")
    _, café = keep(tmp_path, "un CAFÉ 50%")
    assert names(history, words="night 夜晚") == [night]
    assert names(history, words="café") == names(history, words="50%") == [café]
    assert names(history, words="dusk") == [café, night], "the OMS prompt counts"
    assert names(history, words="night café") == names(history, words="_ight") == []


def test_filters_of_model_light_look_and_favourites(tmp_path: Path) -> None:
    history = History(tmp_path)
    dial = Variant(name="dial", correction="dial", luminance=20.0, light="left")
    _, dusk = keep(tmp_path, "sea at night")
    _, dark = keep(tmp_path, "sea", (RAW, dial))
    (raw,) = keep(tmp_path, "sea", (RAW,))
    assert history.models() == ["lumen"] and names(history, model="other") == []
    assert names(history, tag="luminance") == names(history, tag="light=left") == names(history, tag="light") == [dark]
    assert names(history, tag="light=right") == []
    assert names(history, tag="raw") == [raw]
    look = light_of(OMS.model_copy(update={"name": "another name"}))
    assert names(history, light=look) == names(history, light=look, suffix=" at night") == [dusk]
    assert names(history, light=look, prefix="fog ") == []
    history.mark(dark, True)
    assert names(history, favourites=True) == [dark]
    (tmp_path / ".history/index.sqlite3").unlink()
    assert names(history, favourites=True) == [dark], "a favourite survives the loss of the index"
    history.mark(dark, False)
    assert names(history, favourites=True) == []


def test_every_look_finds_the_pictures_that_create_makes_with_it(late: StudioService, tmp_path: Path) -> None:
    looks = [look for look, _ in late.looks.looks()]
    history = History(tmp_path)
    made = {}
    for look in looks:
        request = with_look(replace(CREATE, prompt="sea"), look, ("", "")).to_request()
        made[look.id] = keep(tmp_path, request.prompt, request.variants)[1]
    for look in looks:
        found = [one.name for one in history.find(late.query(look.id)).pictures]
        assert made[look.id] in found, look.id
    assert history.find(late.query("fog")).total < len(looks) / 2
    with pytest.raises(StudioError, match="there is no look"):
        late.query("no")


def test_deleting_takes_the_raw_picture_along_and_can_be_undone(tmp_path: Path) -> None:
    history = History(tmp_path)
    second = OMS.model_copy(update={"name": "oms 2", "guidance_scale": 3.0})
    raw, one, two = keep(tmp_path, variants=(RAW, OMS, second))
    assert history.delete(one) == (one,)
    assert names(history) == [two] and (tmp_path / raw).exists()
    assert history.delete(two) == (two, raw)
    assert names(history) == [] and list(tmp_path.glob("*.png")) == []
    history.undelete((two, raw))
    assert names(history) == [two]
    history.undelete((one,))
    assert names(history) == [two, one]
    with pytest.raises(StudioError, match="cannot be brought back"):
        history.undelete((one,))
    history.delete(one)
    (kept,) = (tmp_path / ".history/deleted").iterdir()
    os.utime(kept, (900, 900))
    kept.rename(kept.with_name(f"1000~{one}"))
    history.delete(two)
    with pytest.raises(StudioError, match="a week has passed"):
        history.undelete((one,))


@pytest.mark.parametrize("days", [-400, 400])
def test_deleted_pictures_can_be_brought_back_though_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Deleted before, while and after the clock is wrong."""
    history, right = History(tmp_path), time.time
    pictures = [keep(tmp_path, str(i), variants=(OMS,))[0] for i in range(4)]
    for one in pictures:
        os.utime(tmp_path / one)
    history.delete(pictures[0])
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + days * 24 * 60 * 60)
        history.delete(pictures[1])
        history.delete(pictures[2])
    history.delete(pictures[3])
    history.undelete(pictures)
    assert history.find().total == 4


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", ".hidden.png", "a\0.png", "no.png", "link.png", ""])
def test_only_pictures_of_the_folder_can_be_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pictures"
    keep(folder)
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    history = History(folder)
    for use in (history.path, history.settings, history.delete, lambda n: history.mark(n, True)):
        with pytest.raises(StudioError, match="there is no picture"):
            use(name)
    with pytest.raises(StudioError, match="cannot be brought back"):
        history.undelete([name])
    assert (tmp_path / "secret.png").exists()


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 99, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    history = History(tmp_path)
    _, oms = keep(tmp_path)
    assert names(history) == [oms]
    (tmp_path / ".history/index.sqlite3").write_bytes(damage)
    assert names(history) == [oms]


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    _, oms = keep(tmp_path)
    (tmp_path / ".history").mkdir()
    with sqlite3.connect(tmp_path / ".history/index.sqlite3") as index:
        index.execute("CREATE TABLE pictures (other TEXT)")
    assert names(History(tmp_path)) == [oms]


def test_other_files_are_not_shown_and_read_once(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "note.txt").write_text("hello")
    history = History(tmp_path)
    assert history.find().pictures == () and history.models() == []
    assert history.refresh() == 0


def test_a_folder_that_did_not_change_is_not_compared_again_and_each_change_is_seen(tmp_path: Path) -> None:
    history = History(tmp_path)
    _, first = keep(tmp_path)
    assert names(history) == [first]
    os.utime(tmp_path, (1_600_000_000,) * 2)
    assert history.refresh() == 0 and history._settled is not None
    _, second = keep(tmp_path, seed=6)
    assert names(history) == [second, first]
    for change in (
        lambda: history.mark(first, True),
        lambda: (tmp_path / ".history/index.sqlite3").unlink(),
        lambda: history.delete(second),
    ):
        for folder in (tmp_path, tmp_path / ".history/favourites"):
            if folder.exists():
                os.utime(folder, (1_600_000_000,) * 2)
        history.refresh()
        change()
    assert names(history, favourites=True) == names(history) == [first]


def test_many_new_files_are_read_by_a_thread_newest_first(tmp_path: Path) -> None:
    made = [keep(tmp_path, seed=seed)[1] for seed in range(FIRST)]
    history = History(tmp_path)
    found = history.find()
    assert found.unread == FIRST and [one.name for one in found.pictures] == made[::-1][: FIRST // 2]
    history.wait()
    assert history.find(count=1_000).total == FIRST and history.refresh() == 0


def test_a_thumbnail_is_made_once_and_a_broken_picture_has_none(tmp_path: Path) -> None:
    history = History(tmp_path)
    _, oms = keep(tmp_path)
    _, cut = keep(tmp_path, seed=6)
    (tmp_path / cut).write_bytes((tmp_path / cut).read_bytes()[:-60])
    history.refresh()
    found = history.thumbnails([oms, cut])
    assert list(found) == [oms] and found[oms][8:12] == b"WEBP"
    (tmp_path / oms).write_bytes(b"")  # the thumbnail comes from the index
    assert history.thumbnails([oms]) == found


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".history").write_text("a file")
    with pytest.raises(StudioError, match="cannot be written"):
        History(tmp_path).find()


def test_two_processes_may_use_a_folder_at_once(tmp_path: Path) -> None:
    """Both rebuild and search the same index while files come and go; neither fails, and both agree at the end."""
    for seed in range(40):
        keep(tmp_path, prompt=("sea", "city")[seed % 2], seed=seed)
    code = (
        "import sys, pathlib\n"
        "from oms_app.output.history import History, Query\n"
        "history = History(pathlib.Path(sys.argv[1]))\n"
        "for turn in range(15):\n"
        "    found = history.find(Query(words=sys.argv[2])).pictures\n"
        "    history.thumbnails([one.name for one in found])\n"
        "    if not found: continue  # the other process has begun to make the index anew\n"
        "    mine = found[0].name\n"
        "    history.mark(mine, turn % 2 == 0)\n"
        "    history.undelete(history.delete(mine))\n"
        "    if turn % 5 == 4: (history.folder / '.history/index.sqlite3').write_bytes(b'damaged' * 200)\n"
        "history.find(); history.wait(); print(history.find().total)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), words], stdout=-1, stderr=-1, text=True)
        for words in ("sea", "city")
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert History(tmp_path).find().total == 40
