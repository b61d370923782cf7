"""Planted records made of an operator's own words, which no source tells."""

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest

from engram.validator import corpus
from engram.validator.corpus import PUBLISHED, Vocabulary
from engram.validator.errors import WordsInvalid
from engram.validator.records import standings as miner_records
from tests.validator.benches import key, over
from tests.validator.toy_miners import Keeps

OWN = Vocabulary(
    first_names=("Ua", "Ub", "Uc", "Ud", "Ue"),
    last_names=("Va", "Vb", "Vc", "Vd", "Ve"),
    syllables=("xa", "xe", "xi", "xo", "xu"),
    kinds=("quay", "mill", "silo", "kiln", "forge"),
    sentences=tuple(
        f"{{person}} carried load {number} of {{number}} crates into {{place}} last {{day}}." for number in range(9)
    ),
    jottings=tuple(f"{{place}} crate {number}" for number in range(9)),
    more=tuple(f"Crate {number} came by sea in {{month}}." for number in range(9)),
    questions=tuple(f"Which crates, {word}, went into {{place}}?" for word in ("now", "then", "ever", "late", "first")),
)


NOTHING: Mapping[str, object] = {}


def written(path: Path, words: Vocabulary = OWN, changed: Mapping[str, object] = NOTHING) -> Path:
    fields = msgspec.to_builtins(words) | dict(changed)
    lines = [f"{name} = {json.dumps(each)}" for name, each in fields.items() if each is not None]
    path.write_text("\n".join(lines))
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert corpus.read_file(written(tmp_path / "words.toml")) == OWN
    assert corpus.read_file(written(tmp_path / "published.toml", PUBLISHED)) == PUBLISHED


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kinds": None}, "missing required field `kinds`"),
        ({"kinds": ["one"]}, "length >= 5"),
        ({"kinds": 5}, "Expected `array`"),
        ({"adverbs": ["so"]}, "unknown field `adverbs`"),
        ({"jottings": ["{place}, {weekday}"] * 5}, "has other placeholders than place, kind, person"),
        ({"jottings": ["{place} {"] * 5}, "has other placeholders than"),
        ({"questions": ["What is there to know?"] * 5}, "must name the {place} that it is about"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_is_wrong(
    tmp_path: Path, changed: dict[str, object], why: str
) -> None:
    with pytest.raises(WordsInvalid, match=r"words\.toml") as refused:
        corpus.read_file(written(tmp_path / "words.toml", changed=changed))
    assert why in str(refused.value)


def test_a_file_that_is_not_there_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WordsInvalid, match="No such file"):
        corpus.read_file(tmp_path / "words.toml")
    (tmp_path / "words.toml").write_text("kinds = [")
    with pytest.raises(WordsInvalid, match=r"words\.toml"):
        corpus.read_file(tmp_path / "words.toml")


def test_notes_of_own_words_have_the_lengths_that_are_asked_for_and_nothing_published() -> None:
    rng = Random(1)
    published = {sentence.split("{")[0].strip() for sentence in (*PUBLISHED.more, *PUBLISHED.sentences)} - {""}
    for length in (20, 60, 100, 300, 700):
        about = corpus.family(rng, OWN)
        text = corpus.note(rng, about, length, OWN)
        assert abs(len(text) - length) < 40
        assert about.place.lower() in text.lower()
        assert not any(each in text for each in published)


async def test_a_miner_that_stores_records_of_own_words_scores_the_same() -> None:
    miner = Keeps(key(1))
    async with over([miner], words=OWN) as bench:
        for _ in range(3):
            await bench.hold()
        known = await bench.ledger.read(lambda c: miner_records.known(c, key(1).public_key))
        assert known is not None
        assert known.standing.ema == pytest.approx(1.0, abs=0.03)
        assert all("crate" in text.lower() or "quay" in text for text in bench.embeds.texts)
