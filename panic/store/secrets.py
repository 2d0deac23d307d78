"""What secrets look like in texts that are kept: under which names they stand, and what known tokens are.

They are patterns alone, read in the order of PATTERNS; in doubt a value is taken for a secret. Repetitions
have limits or give nothing back: without that a long line takes minutes. What has no name that says so and
looks like a word, a path or a digest in hexadecimal is not found.

    for pattern, instead in PATTERNS: text = pattern.sub(instead, text)
"""

from __future__ import annotations

import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
"""Names of variables of the environment whose values are left out."""

INSTEAD = "(redacted)"
NAME = (
    r"(?:key(?!word|board)|token(?!i[sz])|secret|passw|passphrase|passcode|pass(?![a-z])|pwd|credential"
    r"|auth(?!or(?!i[sz]))|cookie)"
)
SET = rf"{NAME}[\w.-]{{0,60}}+[\"'\]]{{0,3}}[ \t]*(?:=>|:=|[:=>]|(?<=[\"']),(?=[ \t]*[bfru]{{0,2}}[\"']))"
"""A name that says that it is secret, and that it is set; other words may stand around the secret one.

In quotes it may be an argument, and its value the next one.
"""
BARE = r"[^\s\"'`,;:=(){}\[\]<>]"
"""A character of a value without quotes. Before a parenthesis or a bracket it is no value, but code."""

URL_CREDENTIALS = re.compile(r"\b([A-Za-z][\w+.-]{0,30}://)[^/\s]{1,1000}@")
"""Up to the last @: a password may have one."""
TOKENS = re.compile(
    r"\b(?:hf_|sk[-_]|[pr]k_(?:live|test)_|gh[oprsu]_|github_pat_|glpat-|xox[a-z]-|xapp-|AKIA|ASIA|AIza|ya29\."
    r"|npm_|pypi-|dckr_pat_|dop_v1_|SG\.|shp[a-z]{2}_|AGE-SECRET-KEY-|gsk_|r8_)[\w.-]{12,}+"
    r"|\beyJ[\w-]{8,}+\.[\w.-]{8,}+|\bhooks\.slack\.com/services/\S+"
)
FILES = re.compile(
    r"(?ms)^(diff --git [^\n]{0,1000}(?:[/.](?:env|netrc|npmrc|pypirc|htpasswd|pgpass|pem|key|p12|pfx)\b"
    r"|/id_[a-z0-9]{2,20}|/credentials)[^/\n]{0,100}\n).*?(?=^diff --git |\Z)"
)
"""Changes of files that are there to hold secrets."""
PRIVATE_KEYS = re.compile(
    r"(?s)(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----).*?(?=-----END |\n@@ |\ndiff |\Z)"
)
QUOTED = re.compile(
    rf"(?i)({SET}[\s(+-]{{0,100}}+[bfru]{{0,2}})(\"\"\"|'''|[\"'`])(?:\\.|(?!\2)[^\\\n]){{8,}}+"
)
UNQUOTED = re.compile(
    rf"(?i)({SET}[ \t]*+)"
    rf"(?:{BARE}{{12,}}+|(?={BARE}{{0,11}}\d)(?={BARE}{{0,11}}[a-z]){BARE}{{8,}}+)(?![(\[])={{0,2}}"
)
PHRASES = re.compile(
    r"(?im)(pass(?:word|wd|phrase|code)[\"']?[ \t]{0,20}:[ \t]{0,20})[^\n\"'()\[\]{}|=]{12,}+$"
)
FLAGS = re.compile(
    rf"(?i)((?<![\w-])--?[\w-]{{0,40}}{NAME}[\w-]{{0,40}}+[ \t]{{1,20}}[\"']?){BARE}{{8,}}+(?![(\[])"
)
SPACED = re.compile(
    rf"(?i)((?<![\w-])(?:env|setenv|set[ \t]{{1,5}}-\w{{1,5}})[ \t]{{1,20}}\w{{0,40}}{NAME}\w{{0,40}}+"
    rf"[ \t]{{1,20}}[\"']?|\blogin[ \t]{{1,20}}\S{{1,200}}+[ \t]{{1,20}}password[ \t]{{1,20}})"
    rf"{BARE}{{8,}}+(?![(\[])"
)
"""What Dockerfiles, shells and .netrc set by a space."""
USERS = re.compile(r"((?<![\w-])(?:-u|--user)[ =]{0,3}[\"']?[^\s:\"']{1,100}:)(?!\d+\b)[^\s\"']{4,}+")
"""What curl is given, and not the group of a user."""
HEADERS = re.compile(
    r"(?i)(\bbearer[ \t]{1,20}|authorization[\"'\]]{0,3}[ \t]{0,20}[:=][ \t]{0,20}[\"']?\w{1,20}[ \t]{1,20})"
    r"[\w.~+/=-]{8,}+"
)

CERTAIN = (
    (URL_CREDENTIALS, rf"\1{INSTEAD}@"),
    (TOKENS, INSTEAD),
)
"""What is a secret wherever it stands, each with what stands there instead."""
PATTERNS = (
    (FILES, rf"\1{INSTEAD}\n"),
    (PRIVATE_KEYS, rf"\1{INSTEAD}"),
    *CERTAIN,
    (HEADERS, rf"\1{INSTEAD}"),
    (QUOTED, rf"\1\2{INSTEAD}"),
    (UNQUOTED, rf"\1{INSTEAD}"),
    (PHRASES, rf"\1{INSTEAD}"),
    (FLAGS, rf"\1{INSTEAD}"),
    (SPACED, rf"\1{INSTEAD}"),
    (USERS, rf"\1{INSTEAD}"),
)

ADDRESS = re.compile(
    r"(?i)\s*(?!(?:https?|file|ftp|git|ssh|tcp|unix|socks[45]h?|s3|gs|hf|sqlite)://)"
    r"[a-z][\w+.-]{1,30}://\S"
)
"""How the value of a variable begins that may be an address of notices (`slack://A/B/C`) or of a database.

Which variables hold addresses only the config says that names them, and all that runs in a shell has them.
"""

RANDOM = re.compile(
    r"(?<![\w/=])(?=[\w+/-]{0,100}\d)(?=[\w+/-]{0,100}[a-z])(?=[\w+/-]{0,100}[A-Z])\w[\w+/-]{31,}+={0,2}"
)
RANDOM_BITS = 4.3
"""Of random base64, 32 characters have about 4.6 bits each, of names in code and paths about 4."""
