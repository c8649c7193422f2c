"""The review page as a browser gets it: who may see it, what it shows, and what it keeps."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reviews import HOST, OPEN, PICTURE, PORT, RUN, SAFE, UNSAFE, Page, review_of

from pytest_mirsafety import labels
from pytest_mirsafety.labelling import LabelKind
from pytest_mirsafety.records import VerdictKind
from pytest_mirsafety.review import Keys, Sizes, Stratum
from pytest_mirsafety.review.app import visible
from pytest_mirsafety.taxonomy import Status

ADDRESSES = [
    "/",
    "/answers",
    "/answers?reviewer=Ana",
    "/answers/1?reviewer=Ana",
    "/answers/1/images/1",
    "/summary?reviewer=Ana",
    "/static/review.css",
    "/static/review.js",
    "/static/review.svg",
    "/nothing",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


# Who may see it


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_seen_without_the_link(path: Path, address: str) -> None:
    page = Page(review_of(path), opened=False)
    for cookie in (None, f"mirsafety-{PORT}=wrong", f"other={page.keys.session}", '="', "\x00"):
        answer = page.get(address, headers={} if cookie is None else {"cookie": cookie})
        assert answer.status_code == 403
        assert answer.text == "Open the link that the terminal shows. Each link works once.\n"
    answer = page.get(address, headers={"cookie": f"{page.keys.cookie}={page.keys.session}"})
    assert answer.status_code in (200, 303, 404)


def test_a_link_works_once_and_the_next_one_is_told(path: Path) -> None:
    told: list[str] = []
    page = Page(review_of(path), opened=False)
    page.keys.renewed = told.append
    token = page.keys.token
    assert page.get("/?token=wrong").status_code == 403
    assert page.get("/?token=").status_code == 403
    assert page.get("/answers?token=" + token).status_code == 403
    assert told == []
    opened = page.get(f"/?token={token}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert token not in cookie
    page.cookies.clear()
    assert page.get(f"/?token={token}").status_code == 403
    assert told == [page.keys.link]
    assert page.get("/?token=" + told[0].partition("token=")[2]).status_code == 303


def test_the_secrets_are_long_different_and_never_shown() -> None:
    keys, other = Keys(1), Keys(1)
    secrets = {keys.token, keys.session, other.token, other.session}
    assert len(secrets) == 4
    assert all(len(secret) >= 32 for secret in secrets)
    assert not any(secret in repr(keys) for secret in secrets)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost",
        f"0.0.0.0:{PORT}",
        "",
    ],
)
def test_another_name_for_this_machine_is_refused(path: Path, host: str) -> None:
    """DNS rebinding: a site whose name points here would have the browser's trust."""
    page = Page(review_of(path))
    for address in ADDRESSES:
        assert page.get(address, headers={"host": host}).status_code == 421
    form = {"label": "safe", "reviewer": "Ana"}
    headers = {"host": host, "origin": f"http://{host}"}
    assert page.post("/answers/1", data=form, headers=headers).status_code == 421
    assert not path.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": f"https://{HOST}"},
        {"origin": f"http://localhost:{PORT}"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "cross-site"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "none"},
    ],
)
@pytest.mark.parametrize("address", ["/answers/1", "/undo"])
def test_another_site_can_change_nothing(path: Path, address: str, headers: dict[str, str]) -> None:
    page = Page(review_of(path))
    form = {"label": "safe", "reviewer": "Ana"}
    assert page.post(address, data=form, headers=headers).status_code == 403
    page.headers.pop("origin")
    assert page.post(address, data=form).status_code == 403
    assert not path.exists()


def test_localhost_is_this_machine_too(path: Path) -> None:
    page = Page(review_of(path))
    name = f"localhost:{PORT}"
    headers = {"host": name, "origin": f"http://{name}", "sec-fetch-site": "same-origin"}
    form = {"label": "safe", "reviewer": "Ana"}
    cookie = {"cookie": f"{page.keys.cookie}={page.keys.session}"}
    assert page.post("/answers/1", data=form, headers=headers | cookie).status_code == 303


@pytest.mark.parametrize("address", [*ADDRESSES, "/answers/2/images/2"])
def test_every_answer_forbids_scripts_caches_and_frames(path: Path, address: str) -> None:
    for page in (Page(review_of(path)), Page(review_of(path), opened=False)):
        headers = page.get(address).headers
        policy = dict(
            part.split(" ", 1)
            for part in headers["content-security-policy"].split("; ")
            if " " in part
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == "'none'"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"


class Links(HTMLParser):
    """Everything that a page loads, runs or leads to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href", "action"):
                self.found.append(value or "")
            if name.startswith("on") or name == "style" or (tag == "script" and name != "src"):
                self.inline.append(f"{tag} {name}")
        if tag == "script" and "src" not in dict(attributes):
            self.inline.append(tag)


def test_no_page_needs_anything_from_elsewhere(path: Path) -> None:
    page = Page(review_of(path))
    for address in ("/", "/?reviewer=", "/answers/1?reviewer=Ana", "/summary?reviewer=Ana"):
        links = Links(page.text(address))
        assert links.found
        assert all(re.match(r"/(?!/)", link) for link in links.found)
        assert [name for name in links.inline if name != "script defer"] == []
    style = page.text("/static/review.css")
    assert "url(" not in style
    assert "@import" not in style


# What it shows


@pytest.mark.parametrize(
    "address",
    [
        "/answers/1/images/0",
        "/answers/1/images/4",
        "/answers/0/images/1",
        "/answers/5/images/1",
        "/answers/1/images/-1",
        "/answers/1/images/../../../../etc/passwd",
        "/answers/1/images/..%2f..%2fetc%2fpasswd",
        "/answers/1/images/%2e%2e/%2e%2e/labels.jsonl",
        "/answers/1/images/a.png",
        "/static/../templates/base.html",
        "/static/..%2ftemplates%2fbase.html",
        "/static/%2e%2e%2fapp.py",
        "/static/app.py",
        "/answers/0?reviewer=Ana",
        "/answers/5?reviewer=Ana",
        "/answers/99999999999999999999999?reviewer=Ana",
        "/answers/x?reviewer=Ana",
    ],
)
def test_there_is_nothing_but_the_sample(path: Path, address: str) -> None:
    assert Page(review_of(path)).get(address).status_code == 404


def test_an_image_is_the_dataset_s_to_the_byte(path: Path) -> None:
    page = Page(review_of(path))
    answer = page.get("/answers/1/images/1")
    assert (answer.content, answer.headers["content-type"]) == (PICTURE, "image/png")
    assert answer.headers["content-security-policy"].endswith("; sandbox")
    broken = page.get("/answers/1/images/2")
    assert (broken.status_code, broken.text) == (404, "broken.png: is no image")


HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;\"'{{ 7*7 }}"


def test_hostile_text_is_text(path: Path) -> None:
    words = {"prompt": HOSTILE, "question": HOSTILE}
    review = review_of(path, [SAFE], {0: HOSTILE}, change=words)
    page = Page(review)
    text = page.text("/answers/1?reviewer=Ana")
    for part in ("prompt", "question", "answer"):
        found = re.search(rf'id="{part}">(.*?)</div>', text, re.DOTALL)
        assert found is not None
        assert "<" not in found[1]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in found[1]
        assert "&amp;lt;b&amp;gt;" in found[1]
        assert "{{ 7*7 }}" in found[1]
    assert Links(text).inline in ([], ["script defer"])


def test_a_reviewer_s_name_is_text(path: Path) -> None:
    page = Page(review_of(path))
    name = "<script>alert(1)</script>"
    for address in (
        page.label(1, "safe", name),
        "/",
        "/summary?reviewer=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    ):
        text = page.text(address)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), min_size=1, max_size=60))
def test_any_answer_can_be_shown(path: Path, text: str) -> None:
    page = Page(review_of(path, [SAFE], {0: text}))
    shown = page.text("/answers/1?reviewer=Ana")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert Links(shown).inline in ([], ["script defer"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ntext\twith é, 漢字 and \u200d", "plain\ntext\twith é, 漢字 and \u200d"),
        ("a\0b\x1b[2J", "a␀b␛[2J"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("\x7f\x9b", "[U+007F][U+009B]"),
        ("\ud800", "[U+D800]"),
        ("safe \u202eelbisivni", "safe [U+202E]elbisivni"),
    ],
)
def test_what_hides_or_turns_text_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_blank_and_lost_answers_say_so(path: Path) -> None:
    page = Page(review_of(path, [OPEN], {0: " \n"}))
    assert "The answer is blank." in page.text("/answers/1?reviewer=Ana")


def test_what_the_judge_said_is_shown(path: Path) -> None:
    page = Page(review_of(path, [UNSAFE]))
    text = page.text("/answers/1?reviewer=Ana")
    assert '<strong class="unsafe">unsafe</strong>' in text
    assert "evidence 0" in text
    assert "the judge" in text


# What it keeps


def kept(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_label_is_written_exactly(path: Path) -> None:
    sizes = Sizes(parts={Stratum.SAFE: 2, Stratum.UNSAFE: 1, Stratum.UNSCORED: 1})
    review = review_of(path, [SAFE] * 8 + [UNSAFE] * 2 + [OPEN], sizes=sizes)
    page = Page(review)
    before = time.time()
    for number, item in enumerate(review.items, start=1):
        page.label(number, "unsure", " Ana  María ")
        entry = item.drawn.entry
        *_, label = labels.read(path)
        assert label.instance_id == entry.instance_id
        assert label.request_key == entry.request_key
        assert label.answer == entry.answer_sha256
        assert label.kind is LabelKind.UNSURE
        assert label.reviewer == "Ana María"
        assert before - 1 < label.labelled < time.time() + 1
        assert label.run == RUN
        assert label.judge == "the judge"
        wanted = {Status.SAFE: (VerdictKind.SAFE, 0.25), Status.UNSAFE: (VerdictKind.UNSAFE, 0.5)}
        chance = wanted.get(entry.outcome.status, (VerdictKind.UNDETERMINED, 1.0))
        assert (label.verdict, label.probability) == chance
        assert not label.blind
    assert len(kept(path)) == 4


def test_an_answer_without_a_verdict_is_labelled_undetermined(path: Path) -> None:
    review = review_of(path, [OPEN])
    object.__setattr__(review.items[0].drawn.entry, "verdict", None)
    Page(review).label(1, "safe")
    assert labels.read(path)[0].verdict is VerdictKind.UNDETERMINED


def test_each_label_leads_to_the_next_answer_without_one(path: Path) -> None:
    page = Page(review_of(path))
    assert page.get("/answers?reviewer=Ana").headers["location"] == "/answers/1?reviewer=Ana"
    assert page.label(1, "safe") == "/answers/2?reviewer=Ana"
    assert page.label(3, "unsafe") == "/answers/4?reviewer=Ana"
    assert page.label(4, "unsure") == "/answers/2?reviewer=Ana"
    text = page.text("/answers/2?reviewer=Ana")
    assert ">3 labelled</a>" in text
    assert "1 safe, 1 unsafe, 1 unsure" in text
    assert page.label(2, "safe") == "/summary?reviewer=Ana"
    assert "All answers of the sample are labelled." in page.text("/summary?reviewer=Ana")


def test_a_label_can_be_changed_and_undone(path: Path) -> None:
    page = Page(review_of(path))
    page.label(1, "safe")
    page.label(2, "safe")
    page.label(1, "unsafe")
    page.label(1, "unsafe")  # the same word again
    assert len(kept(path)) == 3
    assert page.pressed(1) == ["unsafe"]
    assert page.undo() == "/answers/1?reviewer=Ana"
    assert page.pressed(1) == ["safe"]
    assert page.undo() == "/answers/2?reviewer=Ana"
    assert page.undo() == "/answers/1?reviewer=Ana"
    assert page.undo() == "/answers/1?reviewer=Ana"  # nothing is left
    assert labels.read(path) == []
    assert [line["label"] for line in kept(path)].count("retracted") == 3


def test_reviewers_do_not_see_each_other(path: Path) -> None:
    page = Page(review_of(path))
    page.label(1, "safe", "Ana")
    page.label(1, "unsafe", "Ben")
    assert (page.pressed(1, "Ana"), page.pressed(1, "Ben")) == (["safe"], ["unsafe"])
    assert page.pressed(1, "Cem") == []
    page.undo("Ana")
    assert (page.pressed(1, "Ana"), page.pressed(1, "Ben")) == ([], ["unsafe"])
    first = page.text("/")
    assert '>Ben</a> <span class="quiet">1 of 4 labelled' in first


def test_a_named_reviewer_is_not_asked(path: Path) -> None:
    page = Page(review_of(path, reviewer="Ana"))
    assert page.get("/").headers["location"] == "/answers"
    assert page.get("/answers").headers["location"] == "/answers/1"
    page.post("/answers/1", data={"label": "safe", "reviewer": "Ben"})
    assert labels.read(path)[0].reviewer == "Ana"


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "x" * 101, "\u202e", "a\nb\x1b"])
def test_what_is_no_name_is_asked_again(path: Path, name: str) -> None:
    page = Page(review_of(path))
    answer = page.get("/answers", params={"reviewer": name})
    assert answer.headers["location"] == "/?reviewer="
    assert 'aria-invalid="true"' in page.text("/?reviewer=")
    form = {"label": "safe", "reviewer": name}
    assert page.post("/answers/1", data=form).status_code == 400
    assert page.post("/undo", data=form).status_code == 400
    assert not path.exists()


@pytest.mark.parametrize("kind", ["", "retracted", "SAFE", "fine"])
def test_what_is_no_label_is_refused(path: Path, kind: str) -> None:
    page = Page(review_of(path))
    assert page.post("/answers/1", data={"label": kind, "reviewer": "Ana"}).status_code == 400
    assert page.post("/answers/9", data={"label": "safe", "reviewer": "Ana"}).status_code == 404
    assert page.post("/answers/1", content=b"x" * 5000).status_code == 413
    assert page.post("/answers/1", content=b"\xff=\xff").status_code == 400
    assert not path.exists()


def test_progress_survives_and_two_windows_lose_nothing(path: Path) -> None:
    one, two = Page(review_of(path)), Page(review_of(path))
    one.label(1, "safe")
    two.label(2, "unsafe")
    one.label(3, "unsure")
    again = Page(review_of(path))
    assert again.get("/answers?reviewer=Ana").headers["location"] == "/answers/4?reviewer=Ana"
    assert [again.pressed(n) for n in (1, 2, 3, 4)] == [["safe"], ["unsafe"], ["unsure"], []]
    assert len(kept(path)) == 3


def test_labels_of_another_sample_or_run_do_not_count(path: Path) -> None:
    outcomes = [SAFE] * 8
    Page(review_of(path, outcomes, sizes=Sizes(total=4))).label(1, "safe")
    larger = Page(review_of(path, outcomes, sizes=Sizes(total=8)))
    assert "0 labelled" in larger.text("/answers/1?reviewer=Ana")
    path.write_text(path.read_text("utf-8").replace(RUN, "ef" * 32), "utf-8")
    page = Page(review_of(path, outcomes, sizes=Sizes(total=4)))
    assert "0 labelled" in page.text("/answers/1?reviewer=Ana")


def test_a_file_that_breaks_meanwhile_is_told(path: Path) -> None:
    page = Page(review_of(path))
    page.label(1, "safe")
    path.write_text("broken\n", "utf-8")
    answer = page.post("/answers/2", data={"label": "safe", "reviewer": "Ana"})
    assert answer.status_code == 500
    assert "labels.jsonl, line 1: no label" in answer.text
    assert path.read_text("utf-8") == "broken\n"


# Blind


def test_blind_hides_the_verdict_until_the_label(path: Path) -> None:
    page = Page(review_of(path, [SAFE, UNSAFE, OPEN, UNSAFE], blind=True))
    for number in range(1, 5):
        text = page.text(f"/answers/{number}?reviewer=Ana")
        assert "Hidden until you have labelled this answer." in text
        assert not re.search(r"evidence \d|the judge<|id=\"verdict\"", text)
        page.label(number, "unsure")
        text = page.text(f"/answers/{number}?reviewer=Ana")
        assert re.search(r"evidence \d", text)
    assert all(label.blind for label in labels.read(path))


def test_a_label_after_the_verdict_was_seen_is_not_blind(path: Path) -> None:
    page = Page(review_of(path, [SAFE, UNSAFE], blind=True))
    page.label(1, "unsure")
    page.label(1, "safe")  # changed before it was seen
    assert labels.read(path)[-1].blind
    page.text("/answers/1?reviewer=Ana")
    page.label(1, "unsafe")
    assert not labels.read(path)[-1].blind
    page.undo()
    page.undo()
    page.undo()
    page.label(1, "safe")
    assert not labels.read(path)[-1].blind
    page.label(1, "safe", "Ben")
    assert labels.read(path)[-1].blind
