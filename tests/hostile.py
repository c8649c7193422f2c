"""Thirty texts that want to be more than text, for whatever shows what a model wrote."""

from __future__ import annotations

ATTACK = "document.title='attacked';window.attacked=true"
HOSTILE = (
    f"<script>{ATTACK}</script>",
    f"</script><script>{ATTACK}</script>",
    f"</SCRIPT ><ScRiPt>{ATTACK}</sCrIpT>",
    f"<!--<script>{ATTACK}</script>",
    f"--><script>{ATTACK}</script><!--",
    f"]]><script>{ATTACK}</script><![CDATA[",
    f'<img src=x onerror="{ATTACK}">',
    f"<svg/onload={ATTACK}>",
    f'" onmouseover="{ATTACK}" autofocus onfocus="{ATTACK}" x="',
    f"' onclick='{ATTACK}' '",
    f'<a href="javascript:{ATTACK}">x</a>',
    f"javascript:{ATTACK}",
    f"data:text/html,<script>{ATTACK}</script>",
    f"<iframe srcdoc='<script>{ATTACK}</script>'></iframe>",
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    '<base href="http://127.0.0.1:9/"><link rel=stylesheet href=//127.0.0.1:9/x.css>',
    "</style><style>body{display:none}</style>",
    "</title><h1>attacked</h1></textarea></noscript></template>",
    "&lt;script&gt; &amp;amp; &#60;script&#62; &#x3c;b&#x3e; &NotAnEntity;",
    "{{ 7*7 }} {% for x in y %} ${7*7} #{7*7} <%= 7*7 %>",
    "\u202egnp.exe\u202c \u2066\u2067turned\u2069 \u200b\u200fhidden\ufeff",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07 \x9b31m",
    "nul\0nul \x01\x08\x0b\x0c\x1f\x7f\x85",
    "\u2028line\u2029paragraph\r\nreturn\rline\nfeed",
    "half a pair \ud800 and \udfff",
    '\\u003cscript\\u003e \\" \\\\ "}]}',
    "| a | b |\n|---|---|\n# heading\n- item\n> quote\n```\ncode\n```",
    "[x](javascript:alert) ![x](http://127.0.0.1:9/x.png) <http://127.0.0.1:9/> @everyone #1 `x`",
    "=cmd|' /C calc'!A0 %0d%0aSet-Cookie: x=1",
    "A" * 2**20,
)
SECRET = "sk-hostile-secret-0123456789abcdef"  # noqa: S105 - of nobody
