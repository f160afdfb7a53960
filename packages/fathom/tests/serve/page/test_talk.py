"""The course of a conversation: what is streamed, stopped, asked again, edited, refused and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

SPOKEN = "Mia had a red kite."


def send(page: Any, text: str) -> None:
    page.fill("#box", text)
    page.press("#box", "Enter")


def done(page: Any) -> Any:
    """The last answer, once it is finished."""
    page.wait_for_selector("#messages > li:last-child .reply:not(.writing)")
    return page.locator(".reply").last


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 5
    while not true():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


def test_an_answer_appears_as_it_is_written(fake, open_page) -> None:
    fake.delay = 0.15
    page = open_page()
    send(page, "A story, please")
    page.locator(".reply .said", has_text="Mia had").wait_for()
    assert "ran home" not in page.locator(".reply").inner_text()
    assert page.locator("#stop").is_visible() and not page.locator("#send").is_visible()
    assert page.locator("#status").inner_text() == ""       # a screen reader is not told of each token
    reply = done(page)
    assert reply.locator("strong").inner_text() == "red" and reply.locator("li").count() == 2
    assert reply.locator("code").inner_text() == "hill"
    page.locator("#status", has_text="Answer finished. Mia had").wait_for(state="attached")
    asked = fake.asked[0]
    assert asked["messages"] == [{"role": "user", "content": "A story, please"}]
    assert asked["stream"] and asked["stream_options"] == {"include_usage": True} and asked["fathom_details"]
    assert asked["model"] == "small-world" and asked["temperature"] == 0.7 and asked["max_tokens"] == 512
    assert not {"top_k", "min_p", "seed"} & set(asked)      # off


def test_stop_reaches_the_server_and_keeps_what_came(fake, open_page) -> None:
    fake.delay, fake.answer = 0.05, "word " * 200
    page = open_page()
    send(page, "Go on")
    page.locator(".reply .said", has_text="word word word word").wait_for()
    page.keyboard.press("Escape")
    reply = done(page)
    assert "You stopped this answer." in reply.inner_text() and "word word" in reply.inner_text()
    until(lambda: fake.left == 1)
    send(page, "Again")
    page.wait_for_selector("#stop:not([hidden])")
    page.click("#stop")
    done(page)
    until(lambda: fake.left == 2)


def test_regenerating_keeps_the_answer_before(fake, open_page) -> None:
    page = open_page()
    send(page, "A story")
    done(page)
    fake.answer = "Another one."
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("Another one.").first.wait_for()
    assert fake.asked[1]["messages"] == fake.asked[0]["messages"]
    assert done(page).locator(".pager").inner_text().endswith("2 of 2")
    page.get_by_role("button", name="The answer before").click()
    assert SPOKEN in page.locator(".reply").inner_text()
    send(page, "And then?")
    done(page)
    assert fake.asked[2]["messages"][1]["content"] == fake_answer()     # the one that is shown goes along


def fake_answer() -> str:
    return "Mia had a **red** kite.\n\n- it flew high\n- over the `hill`\n\nShe ran home."


def test_an_edited_message_goes_on_from_there_and_can_be_undone(fake, open_page) -> None:
    page = open_page()
    for text in ("one", "two"):
        send(page, text)
        done(page)
    page.get_by_role("button", name="Edit this message").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("uno")
    page.keyboard.press("Enter")
    done(page)
    assert fake.asked[2]["messages"] == [{"role": "user", "content": "uno"}]
    assert page.locator(".question .said").all_inner_texts() == ["uno"]
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".question .said").all_inner_texts() == ["one", "two"]
    assert page.locator("#title").inner_text() == "one"


def test_settings_and_system_prompt_go_along(fake, open_page) -> None:
    page = open_page()
    page.get_by_role("tab", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    for label, value in (("Temperature", "0"), ("Top-k", "40"), ("Min-p", "0.1"), ("Top-p", "0.5")):
        page.get_by_label(label, exact=True).fill(value)
    for label, value in (("Longest answer", "99999999"), ("Seed", "7")):
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).blur()
    page.get_by_label("Speculation details").uncheck()
    send(page, "Hello")
    done(page)
    asked = fake.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    want = {"temperature": 0, "top_k": 40, "min_p": 0.1, "top_p": 0.5, "max_tokens": 2048, "seed": 7}
    assert {name: asked.get(name) for name in want} == want
    assert "fathom_details" not in asked
    page.reload()
    page.get_by_role("tab", name="Settings").click()
    assert page.get_by_label("Seed").input_value() == "7"
    assert page.get_by_label("System prompt").input_value() == "Be brief."
    page.get_by_role("button", name="Reset").click()
    assert page.get_by_label("Temperature").input_value() == "0.7"
    assert page.get_by_label("Seed").input_value() == ""


def test_a_full_queue_is_waited_for(fake, open_page) -> None:
    fake.plan = ["busy"]
    page = open_page(refused=True)
    send(page, "Hello")
    page.get_by_text("Trying again in 2 s").wait_for()
    page.get_by_text("Trying again in 1 s").wait_for()
    assert SPOKEN in done(page).inner_text()
    fake.plan = ["busy"]
    send(page, "Hello")
    page.get_by_role("button", name="Try now").click()
    assert SPOKEN in done(page).inner_text()
    assert len(fake.asked) == 4


def test_waiting_can_be_stopped(fake, open_page) -> None:
    fake.plan = ["busy"]
    page = open_page(refused=True)
    send(page, "Hello")
    page.get_by_text("Trying again in").wait_for()
    page.keyboard.press("Escape")
    assert "You stopped this answer." in done(page).inner_text()


def test_an_engine_that_is_down_is_waited_for(fake, open_page) -> None:
    fake.plan = ["down"]
    page = open_page(refused=True)
    send(page, "Hello")
    page.get_by_text("The model is starting").wait_for()
    until(lambda: fake.paths.count("/health") > 0)
    assert len(fake.asked) == 1
    fake.well = True
    assert SPOKEN in done(page).inner_text()


def test_an_answer_that_breaks_off_is_kept(fake, open_page) -> None:
    fake.plan = ["broken"]
    page = open_page()
    send(page, "Hello")
    reply = done(page)
    assert "Mia had a" in reply.inner_text() and "The answer broke off: out of pages." in reply.inner_text()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("ran home").first.wait_for()
    assert done(page).locator(".pager").inner_text().endswith("2 of 2")


REFUSALS = {
    "request": "temperature must be at most 2. Change the message or the settings",
    "long": "9000 tokens are above the context of 2048. Shorten the message",
    "failed": "The server failed at this: a layer is gone. Fix: load the model again.",
    "forbidden": "this origin is not let in. Ask whoever runs it.",
}


@pytest.mark.parametrize("way", REFUSALS)
def test_a_refusal_is_a_sentence_that_says_what_to_do(way: str, fake, open_page) -> None:
    fake.plan = [way]
    page = open_page(refused=True)
    send(page, "Hello")
    assert REFUSALS[way] in done(page).inner_text()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("ran home").first.wait_for()
    assert done(page).locator(".pager").is_hidden()     # nothing had arrived: there is one answer


def test_a_key_is_asked_for_and_stays_in_the_tab(fake, open_page) -> None:
    fake.key = "s3cret"
    page = open_page(refused=True)
    page.get_by_role("dialog").wait_for()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("That key was not accepted").wait_for()
    page.get_by_label("Key", exact=True).fill("s3cret")
    page.keyboard.press("Enter")
    page.get_by_text("Talk to small-world").wait_for()
    send(page, "Hello")
    assert SPOKEN in done(page).inner_text()
    assert page.evaluate("JSON.stringify(localStorage)").count("s3cret") == 0
    page.reload()
    assert SPOKEN in done(page).inner_text() and not page.get_by_role("dialog").is_visible()


def test_without_a_key_nothing_is_sent_until_one_is_given(fake, open_page) -> None:
    fake.key = "s3cret"
    page = open_page(refused=True)
    page.get_by_role("button", name="Not now").click()
    page.get_by_text("The server wants a key.").wait_for()
    send(page, "Hello")
    page.get_by_label("Key", exact=True).fill("s3cret")
    page.keyboard.press("Enter")
    assert SPOKEN in done(page).inner_text() and fake.asked[0]["model"] == "small-world"


def test_two_conversations_do_not_mix(fake, open_page) -> None:
    fake.delay = 0.1
    page = open_page()
    send(page, "first")
    page.wait_for_selector(".reply.writing")
    page.keyboard.press("Alt+n")
    assert page.locator("#messages > li").count() == 0
    page.get_by_text("The answer in “first” is finished.").first.wait_for()
    assert page.locator("#messages > li").count() == 0
    send(page, "second")
    done(page)
    assert fake.asked[1]["messages"] == [{"role": "user", "content": "second"}]
    page.get_by_role("button", name="first", exact=True).click()
    assert SPOKEN in done(page).inner_text()
