"""What the browser keeps: history, files in and out, and what neither a model nor a file can make it do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVIL = "<img src=x onerror=\"hit=1\"><script>hit=1</script> [go](javascript:hit=1) <b>bold</b>"
STORED = "Object.keys(localStorage).filter((name) => name.includes('/1/'))"


def send(page: Any, text: str) -> None:
    page.fill("#box", text)
    page.press("#box", "Enter")
    page.wait_for_selector("#messages > li:last-child .reply:not(.writing)")


def titles(page: Any) -> list[str]:
    found: list[str] = page.locator("#conversations .open").all_inner_texts()
    return found


def load(page: Any, path: Path, value: Any) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    page.set_input_files("#import-file", path)
    page.locator(".note").last.wait_for()


def export(page: Any, name: str) -> dict[str, Any]:
    with page.expect_download() as got:
        page.get_by_role("button", name=name, exact=True).click()
    value: dict[str, Any] = json.loads(Path(got.value.path()).read_text(encoding="utf-8"))
    return value


def test_history_is_there_after_a_reload(fake, open_page) -> None:
    page = open_page()
    send(page, "About a kite")
    page.keyboard.press("Alt+n")
    send(page, "About a hat")
    page.reload()
    assert titles(page) == ["About a hat", "About a kite"]
    assert page.locator("#title").inner_text() == "About a hat"
    page.get_by_role("button", name="About a kite", exact=True).click()
    assert "ran home" in page.locator(".reply").inner_text()
    page.get_by_label("Show tokens").check()
    assert page.locator(".token.accepted").count() > 2      # drafts are kept too


def test_conversations_are_renamed_and_deleted(fake, open_page) -> None:
    page = open_page()
    send(page, "About a kite")
    page.get_by_role("button", name="Rename: About a kite").click()
    page.keyboard.type("The kite")
    page.keyboard.press("Enter")
    assert titles(page) == ["The kite"] and page.locator("#title").inner_text() == "The kite"
    page.get_by_role("button", name="Rename: The kite").click()
    page.keyboard.type("never mind")
    page.keyboard.press("Escape")
    assert titles(page) == ["The kite"]
    page.get_by_role("button", name="Delete: The kite").click()
    assert titles(page) == [] and page.evaluate(STORED) == []
    page.get_by_role("button", name="Undo").click()
    page.reload()
    assert titles(page) == ["The kite"]


def test_what_is_exported_can_be_imported(fake, open_page, tmp_path: Path) -> None:
    page = open_page()
    send(page, "About a kite")
    body = export(page, "Export all")
    assert body["fathom_chat"] == 1 and len(body["conversations"]) == 1
    assert export(page, "Export: About a kite") == body
    load(page, tmp_path / "a.json", body)
    assert titles(page) == ["About a kite", "About a kite"]     # a second one, none is replaced
    page.reload()
    assert len(titles(page)) == 2


def test_files_that_hold_no_conversations_are_refused(fake, open_page, tmp_path: Path) -> None:
    page = open_page()
    bad = ["not json", [], {"messages": 3}, {"messages": [{"role": "assistant", "answers": []}]}, [None],
           {"messages": [{"role": "user", "content": {"a": 1}}]}, {"conversations": "x"}, 7,
           {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}]  # fmt: skip
    for n, value in enumerate(bad):
        load(page, tmp_path / f"{n}.json", value)
    words = page.locator(".note p").all_inner_texts()
    assert len(words) == len(bad) and "is not JSON" in words[0] and words[1].startswith("0 conversations")
    assert all("holds no conversations of this page" in one for one in words[2:]), words
    assert titles(page) == []


def test_a_model_cannot_write_markup(fake, open_page) -> None:
    fake.answer = f"{EVIL}\n\n```html\n{EVIL}\n```\n\n- **{EVIL}**\n\n# {EVIL}"
    fake.info["model"] = fake.info["line"] = EVIL
    page = open_page()
    page.get_by_text("onerror").first.wait_for()
    send(page, EVIL)
    assert page.locator(".reply .said").inner_text().count(EVIL) == 4
    page.get_by_label("Show tokens").check()
    assert "onerror" in page.locator(".tokens").inner_text()
    page.locator(".tokens [role=option]").first.click()
    page.locator("table.grid").wait_for()
    assert page.evaluate("window.hit") is None
    assert page.locator("img, a:not(.skip), body script, .messages b").count() == 0


def test_a_file_cannot_bring_markup(fake, open_page, tmp_path: Path) -> None:
    token = {"id": 3, "text": EVIL, "draft": "accepted", "rejected": [EVIL]}
    stats = {"drafted": EVIL}
    answer = {"content": EVIL, "tokens": [token], "problem": EVIL, "finish": "error", "stats": stats}
    said = [{"role": "user", "content": EVIL}, {"role": "assistant", "answers": [answer], "shown": 99}]
    one = {"id": "../" + EVIL, "title": EVIL, "system": EVIL, "extra": EVIL, "messages": said}
    page = open_page()
    load(page, tmp_path / "evil.json", {"conversations": [one, {**one, "__proto__": {"hit": 1}}]})
    page.locator("#conversations .open").first.click()
    for _ in range(2):
        page.keyboard.press("Alt+k")
        assert EVIL in page.locator("#messages").inner_text()
    assert page.evaluate("[window.hit, ({}).hit]") == [None, None]
    assert page.locator("img, a:not(.skip), body script, .messages b").count() == 0
    assert not any("<" in name for name in page.evaluate(STORED))


def test_damaged_storage_is_left_out_and_said(fake, open_page) -> None:
    page = open_page()
    send(page, "About a kite")
    page.evaluate("""() => {
        localStorage.setItem("fathom-chat/1/aaaa", "{oops");
        localStorage.setItem("fathom-chat/1/bbbb", JSON.stringify({ messages: [{ role: "tool" }] }));
        localStorage.setItem("fathom-chat-settings", '{"temperature": "hot", "seed": -5, "top_p": 9}');
        localStorage.setItem("fathom-chat-theme", "<pink>");
    }""")
    page.reload()
    page.get_by_text("2 stored conversations are damaged").first.wait_for()
    assert titles(page) == ["About a kite"]
    page.get_by_role("button", name="Delete what is damaged").click()
    assert page.evaluate("localStorage.getItem('fathom-chat/1/aaaa')") is None
    send(page, "And now?")
    asked = fake.asked[-1]
    assert (asked["temperature"], asked["seed"], asked["top_p"]) == (0.7, 0, 1)


def test_a_full_storage_is_said_and_the_page_goes_on(fake, open_page) -> None:
    page = open_page()
    page.evaluate("""() => {
        for (let size = 1 << 22; size; size >>= 1) {
            try { for (let i = 0; ; i++) localStorage.setItem(`${size}-${i}`, "x".repeat(size)); } catch { }
        }
    }""")
    send(page, "About a kite")
    page.get_by_text("The browser has no room for more conversations.").first.wait_for()
    assert "ran home" in page.locator(".reply").inner_text() and titles(page) == ["About a kite"]
    assert len(export(page, "Export all")["conversations"]) == 1


def test_markdown_of_every_shape(fake, open_page) -> None:
    fake.answer = ("a *b* **c** `d ** e` snake_case_name 2 * 3 * 4 _f_ **open\n\n"
                   "3. three\n4. four\n\n   more of four\n   - inner\n\n```py\n# not *this*\n\nx = 1\n```\n\n"
                   "* star\n* next\n\n    ~~~\n~~~\nlast fence")  # fmt: skip
    page = open_page()
    send(page, "Everything")
    html = page.locator(".markdown")
    assert html.locator("em").all_inner_texts() == ["b", "f"]
    assert html.locator("strong").all_inner_texts() == ["c"]
    assert "snake_case_name 2 * 3 * 4" in html.inner_text() and "**open" in html.inner_text()
    assert html.locator("ol").get_attribute("start") == "3" and html.locator("ol > li").count() == 2
    assert "more of four" in html.locator("ol > li").nth(1).inner_text()
    assert html.locator("ol ul li").all_inner_texts() == ["inner"]
    assert html.locator("pre").first.inner_text() == "# not *this*\n\nx = 1"
    assert html.locator("pre").last.inner_text() == "last fence"


def test_headings_fences_and_code_at_their_edges(fake, open_page) -> None:
    fake.answer = ("# a #b # ##\n\n##  two  \n\n#none\n\n~~~ py x\n1\n~~~\n\n"
                   "~~~ `no`\n\n`` ` `` and `  ` and ` x`")  # fmt: skip
    page = open_page()
    send(page, "Edges")
    html = page.locator(".markdown")
    assert html.locator(".heading").all_inner_texts() == ["a #b #", "two"]
    assert html.locator(".code-head span").all_inner_texts() == ["py"] and html.locator("pre").count() == 1
    assert "#none" in html.inner_text() and "~~~ no" in html.inner_text()
    assert html.locator("p code").all_text_contents() == ["no", "`", "  ", " x"]


def test_how_an_answer_ended_is_looked_up_among_our_own_words(fake, open_page, tmp_path: Path) -> None:
    page = open_page()
    answer = {"content": "x", "finish": "constructor"}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "answers": [answer], "shown": 0}]
    load(page, tmp_path / "a.json", {"title": "Odd", "messages": said})
    page.get_by_role("button", name="Odd", exact=True).click()
    assert page.locator(".reply .state").inner_text() == ""


def test_experts_are_those_of_what_the_answer_was_written_after(fake, open_page) -> None:
    page, told = open_page(), []
    page.on("request", lambda one: one.url.endswith("/tokenize") and told.append(one.post_data_json))
    page.get_by_role("tab", name="Settings").click()
    page.fill("#system", "Be kind.")
    send(page, "One")
    page.get_by_role("button", name="Regenerate: write another answer").click()
    page.locator(".pager", has_text="2 of 2").wait_for()
    page.wait_for_selector("#messages > li:last-child .reply:not(.writing)")
    fake.answer = "Another answer"
    send(page, "Two")
    page.fill("#system", "Be cruel.")
    page.get_by_role("button", name="The answer before").click()
    page.reload()
    page.get_by_label("Show tokens").check()
    page.locator(".tokens").last.locator("[role=option]").first.click()
    page.locator("table.grid").wait_for()
    assert told[-1]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert told[-1]["messages"] == fake.asked[-1]["messages"]


def test_long_text_full_of_marks_is_quick(fake, open_page) -> None:
    fake.answer = "**a _b `c *d " * 4000
    page = open_page()
    page.fill("#box", "x")
    spent = page.evaluate("""async (text) => {
        const { blocks, inline } = await import("./page/markdown.js"), began = performance.now();
        inline(text); inline("`".repeat(20000) + "a"); inline("*".repeat(20000)); inline("_a ".repeat(20000));
        inline("` " + "a".repeat(50000) + "`");
        const long = (begin, part, end) => blocks([begin + part.repeat(50000) + end]);
        long("# ", " ", "x"); long("# ", "#", "x");
        long("", "~", "`"); long("~~~", "a", "`"); long("~~~", " ", "`");
        return performance.now() - began;
    }""", fake.answer)
    assert spent < 2000, spent      # ms; 20 times what it takes
