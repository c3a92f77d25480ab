"""The environment's variables: what each takes, where it is read from, and how a wrong value is told."""

from __future__ import annotations

import os

import pytest

from ginit.restart import RestartPolicy
from ginit.settings import Settings, SettingsError

#: Each variable, the setting it is, and some of the values it takes.
TAKEN = [
    ("DIR", "directory", b"/srv/services", b"/srv/services"),
    ("DIR", "directory", b"/srv/\xff", b"/srv/\xff"),
    ("JSON_STDOUT", "json_stdout", b"0", False),
    ("JSON_STDOUT", "json_stdout", b"1", True),
    *(("LOG_LEVEL", "log_level", level, level.decode()) for level in (b"none", b"error", b"warn", b"info", b"debug")),
    *(("LOG_FORMAT", "log_format", form, form.decode()) for form in (b"text", b"json")),
    *(("REPARENTING_POLICY", "reparenting_policy", policy, policy.decode()) for policy in (b"terminate", b"adopt", b"ignore")),
    ("KILL_TIMEOUT", "kill_timeout", b"0", 0),
    ("KILL_TIMEOUT", "kill_timeout", b"2.5", 2.5),
    ("MAX_LINE", "max_line", b"1", 1),
    ("MAX_LINE", "max_line", b"65536", 65536),
    ("DRAIN_TIMEOUT", "drain_timeout", b"0", 0),
    ("DRAIN_TIMEOUT", "drain_timeout", b"0.1", 0.1),
    *(("RESTART", "restart", mode, RestartPolicy(mode.decode())) for mode in (b"no", b"on-failure", b"always")),
    *(("RESTART", "restart", b"on-failure:%d" % limit, RestartPolicy("on-failure", limit)) for limit in (0, 1, 5, 999999999)),
    ("RESTART", "restart", b"on-failure:007", RestartPolicy("on-failure", 7)),
    ("SUPERVISE", "supervise", b"0", False),
    ("SUPERVISE", "supervise", b"1", True),
]
#: `on-failure:` with what is no number of restarts: `N` itself, and Arabic digits, which Python takes for a number, among them.
WRONG_LIMITS = (
    b"",
    b"N",
    b"-1",
    b"+1",
    b" 1",
    b"1 ",
    b"1.5",
    b"1e3",
    b"1_0",
    b"x",
    b"3:",
    b"3:3",
    b"1000000000",
    b"\xd9\xa3",
    b"\xff",
)
#: Values that a variable doesn't take, and words of what it does take.
REFUSED = [
    *(("JSON_STDOUT", value, "0 or 1") for value in (b"2", b"true", b"yes", b" 1", b"01", b"-1")),
    *(("LOG_LEVEL", value, "none, error, warn, info or debug") for value in (b"warning", b"WARN", b"3", b"warn ")),
    *(("LOG_FORMAT", value, "text or json") for value in (b"JSON", b"xml", b"1")),
    *(("REPARENTING_POLICY", value, "terminate, adopt or ignore") for value in (b"kill", b"Terminate", b"0")),
    *(("KILL_TIMEOUT", value, "seconds") for value in (b"-1", b"x", b"nan", b"inf", b"-inf", b"1e999", b"10s", b"1_0", b"\xff")),
    *(("MAX_LINE", value, "bytes") for value in (b"0", b"-1", b"1.5", b"1k", b"1e6", b"x", b"\xd9\xa3", b"+1", b" 1", b"00")),
    *(("DRAIN_TIMEOUT", value, "seconds") for value in (b"-0.1", b"soon", b"nan", b"inf")),
    *(("RESTART", b"on-failure:" + limit, "no, on-failure, on-failure:N or always") for limit in WRONG_LIMITS),
    *(
        ("RESTART", value, "no, on-failure, on-failure:N or always")
        for value in (b"always:3", b"always:", b"no:1", b"no:", b":3")
    ),
    *(
        ("RESTART", value, "no, on-failure, on-failure:N or always")
        for value in (b"yes", b"1", b"Always", b" no", b"runit", b":")
    ),
    *(
        ("RESTART", value, "no, on-failure, on-failure:N or always")
        for value in (b"unless-stopped", b"on_failure", b"on-failure3")
    ),
    *(("SUPERVISE", value, "0 or 1") for value in (b"2", b"true", b"yes", b" 1", b"01")),
]


def environ(**variables: bytes) -> dict[bytes, bytes]:
    return {os.fsencode(name): value for name, value in variables.items()}


def errors_of(**variables: bytes) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.read(environ(**variables))
    return raised.value.errors


def test_an_empty_environment_gives_the_defaults():
    assert Settings.read({})._asdict() == {
        "directory": b"/etc/service",
        "json_stdout": True,
        "log_level": "warn",
        "log_format": "text",
        "reparenting_policy": "terminate",
        "kill_timeout": 30,
        "max_line": 1048576,
        "drain_timeout": 5,
        "restart": ("no", None),
        "supervise": False,
        "runsvdir": False,
        "sessions": False,
    }


@pytest.mark.parametrize("prefix", ["GINIT_", "DINIT_"])
@pytest.mark.parametrize(("name", "field", "value", "meaning"), TAKEN)
def test_a_variable_is_read_under_both_names(prefix, name, field, value, meaning):
    assert Settings.read(environ(**{prefix + name: value})) == Settings()._replace(**{field: meaning})


@pytest.mark.parametrize(("name", "field", "value", "meaning"), TAKEN)
def test_ginits_own_variable_counts_more_than_dinits(name, field, value, meaning):
    # What DINIT_* says isn't even looked at: it may be something that ginit doesn't take.
    both = environ(**{"GINIT_" + name: value, "DINIT_" + name: b"/nonsense"})
    assert Settings.read(both) == Settings()._replace(**{field: meaning})


@pytest.mark.parametrize(("name", "field", "value", "meaning"), TAKEN)
def test_an_empty_variable_is_taken_as_unset(name, field, value, meaning):
    assert Settings.read(environ(**{"GINIT_" + name: b"", "DINIT_" + name: b""})) == Settings()
    fallback = environ(**{"GINIT_" + name: b"", "DINIT_" + name: value})
    assert Settings.read(fallback) == Settings()._replace(**{field: meaning})


def test_a_given_directory_overrides_the_variable():
    assert Settings.read(environ(GINIT_DIR=b"/one"), b"/two").directory == b"/two"


def test_the_directory_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(tmp_path)
    assert Settings.read({}, b"services").directory == here + b"/services"
    assert Settings.read({}, b"./check").directory == here + b"/./check"
    assert Settings.read(environ(GINIT_DIR=b"services")).directory == here + b"/services"


@pytest.mark.parametrize("prefix", ["GINIT_", "DINIT_"])
@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_a_wrong_value_is_told_with_the_variable_and_what_it_takes(prefix, name, value, words):
    errors = errors_of(**{prefix + name: value})
    assert len(errors) == 1
    assert errors[0].startswith(f"{prefix}{name} takes ")
    assert words in errors[0]


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"\x1b[31m", b"\xff\n", b"\xe2\x80\xa8"])
def test_an_error_stays_on_its_line_whatever_the_value_is(value):
    (error,) = errors_of(GINIT_LOG_LEVEL=value)
    assert error.isascii()
    assert error.isprintable()


def test_an_error_shows_the_value():
    (error,) = errors_of(GINIT_LOG_LEVEL=b"loud")
    assert "'loud'" in error


def test_every_wrong_value_is_told_at_once():
    errors = errors_of(GINIT_JSON_STDOUT=b"x", GINIT_MAX_LINE=b"x", DINIT_KILL_TIMEOUT=b"x", GINIT_LOG_FORMAT=b"json")
    assert [error.split(" ")[0] for error in errors] == ["GINIT_JSON_STDOUT", "DINIT_KILL_TIMEOUT", "GINIT_MAX_LINE"]


def test_a_number_of_any_length_is_taken_or_told_like_any_other():
    # Newer Pythons don't read so many digits.
    digits = b"9" * 5000
    try:
        assert Settings.read(environ(GINIT_MAX_LINE=digits)).max_line == 10**5000 - 1
    except SettingsError as refused:
        assert refused.errors[0].startswith("GINIT_MAX_LINE takes a whole number of bytes")  # noqa: PT017


def test_settings_cannot_be_changed():
    settings = Settings()
    for field in settings._fields:
        with pytest.raises(AttributeError):
            setattr(settings, field, "changed")
    with pytest.raises(AttributeError):
        settings.another = "added"


def test_other_variables_are_nobodys_business():
    assert Settings.read(environ(GINIT_OTHER=b"x", XGINIT_DIR=b"/x", LOG_LEVEL=b"x", GINIT_=b"x")) == Settings()
