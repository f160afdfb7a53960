"""Two tabs of one browser keep one history: what either of them writes stays."""

from __future__ import annotations

from typing import Any

SAVED = """() => Object.entries(localStorage).filter(([name]) => name.includes("/1/"))
    .map(([, text]) => JSON.parse(text).messages.flatMap(
        (one) => one.content ? [one.content] : one.answers.map((answer) => answer.content)))"""


def ask(page: Any, text: str) -> None:
    page.fill("#box", text)
    page.press("#box", "Enter")


def done(page: Any) -> None:
    page.wait_for_selector("#messages > li:last-child .reply:not(.writing)")
    page.wait_for_selector("#send:visible")


def two(fake: Any, open_page: Any) -> tuple[Any, Any]:
    """Tabs that show the same conversation."""
    first = open_page()
    ask(first, "About a kite")
    done(first)
    second = first.context.new_page()
    second.goto(fake.url)
    second.locator(".reply", has_text="ran home").wait_for()
    return first, second


def test_both_may_write_to_one_conversation_at_once(fake, open_page) -> None:
    first, second = two(fake, open_page)
    fake.delay, fake.answer = 0.1, "slow " * 40 + "first"
    ask(first, "From the first")
    first.locator(".reply", has_text="slow slow").wait_for()
    fake.answer = "slow " * 20 + "second"
    ask(second, "From the second")
    done(first)
    done(second)
    texts = [text for conversation in first.evaluate(SAVED) for text in conversation]
    answers = "slow " * 40 + "first", "slow " * 20 + "second"
    for wanted in ("About a kite", "From the first", "From the second", *answers):
        assert wanted in texts, wanted
    second.reload()
    assert {text for one in second.evaluate(SAVED) for text in one} == set(texts)


def test_a_tab_that_writes_takes_up_what_the_other_changes(fake, open_page) -> None:
    first, second = two(fake, open_page)
    first.keyboard.press("Alt+n")
    fake.delay, fake.answer = 0.1, "slow " * 40 + "end"
    ask(first, "About a hat")
    first.locator(".reply", has_text="slow slow").wait_for()
    for old, new in (("About a kite", "Kites"), ("About a hat", "Hats")):   # to the latter it still writes
        second.get_by_role("button", name=f"Rename: {old}").click()
        second.keyboard.type(new)
        second.keyboard.press("Enter")
    first.get_by_role("button", name="Kites", exact=True).wait_for()
    done(first)
    for page in (first, second):
        page.reload()
        assert page.locator("#conversations .open").all_inner_texts() == ["Hats", "Kites"]
    assert "slow " * 40 + "end" in [text for one in first.evaluate(SAVED) for text in one]


def test_deleting_in_one_tab_does_not_lose_what_the_other_writes(fake, open_page) -> None:
    first, second = two(fake, open_page)
    fake.delay, fake.answer = 0.1, "slow " * 20 + "end"
    ask(first, "Go on")
    second.get_by_role("button", name="Delete: About a kite").click()
    second.evaluate("localStorage.clear()")
    done(first)
    assert [one[-1] for one in first.evaluate(SAVED)] == ["slow " * 20 + "end"]


MERGES = """async () => {
    const { merged } = await import("./page/merge.js");
    const answer = (content, finish = "stop") => ({ content, finish });
    const message = (one, i) => (i % 2 ? { role: "assistant", answers: one, shown: 0 }
        : { role: "user", content: one });
    const talk = (title, ...said) => (
        { id: "a", title, named: false, system: "", updated: 1, messages: said.map(message) });
    const base = talk("old", "q", [answer("a", "")]);
    const words = (one) => one.content ?? one.answers.map(words);
    const told = (one) => one && [one.title, ...one.messages.map(words)];
    return [
        merged(base, talk("old", "q", [answer("a lon", "")]), talk("new", "q", [answer("a long", "")])),
        merged(base, talk("mine", "q", [answer("a longer")]),
            talk("old", "q", [answer("a")], "r", [answer("b")])),
        merged(base, talk("old", "q", [answer("a"), answer("b")]),
            talk("old", "q", [answer("a"), answer("c")])),
        merged(base, talk("old", "other", [answer("a")]), talk("old", "q", [answer("a")])),
    ].map(told);
}"""


def test_versions_are_joined_or_kept_apart(fake, open_page) -> None:
    assert open_page().evaluate(MERGES) == [
        ["new", "q", ["a long"]],
        ["mine", "q", ["a longer"], "r", ["b"]],
        ["old", "q", ["a", "b", "c"]],
        None,
    ]
