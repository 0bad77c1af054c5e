"""What users type and public bug reports hold: texts that some language takes for its own."""

ODD_TEXTS = (
    "my set #1",
    "a; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "it's",
    'say "so"',
    "100%",
    "%(name)s {0} %s",
    "a&b|c>d<e",
    "key: value",
    "* & ! @",
    "!!python/object:os.system",
    "back\\slash",
    "müde Grüße",
    "🦊 family 👩‍👩‍👧",
    "a?b#c",
    "~nobody",
    "-x --help",
    "[unclosed",
    "a\tb",
)
