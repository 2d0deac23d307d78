"""What is spelt like what: the one rule behind every "did you mean"."""

from panic.errors import nearest


def test_the_nearest_spelling_whatever_the_case() -> None:
    assert nearest("pocketcaptoner", ["PocketDiffusion", "PocketCaptioner"]) == ["PocketCaptioner"]
    assert nearest("zzz", ["PocketDiffusion", "PocketCaptioner"]) == []
    assert nearest("pair", ["pairs", "hair", "walk", "zoo"], most=3) == ["pairs", "hair"]
